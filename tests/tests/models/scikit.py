"""Trains models with scikit-learn, converts them with skl2onnx, and says what scikit-learn answers.

usage: scikit.py DIRECTORY

Writes for each model NAME.onnx (classifiers: NAME.zipmap.onnx too), NAME.input (little-endian, row by row), and what
is expected: NAME.scores (FP64: `predict_proba`, or `predict` of a regressor) and, of classifiers, NAME.labels (a label
a line). models.json lists them.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx.helper
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from skl2onnx import to_onnx

TRAINED_ON, ASKED = 2_000, 10_000
FEATURES = 8
# The largest difference from scikit-learn, in units of the largest answer (1 at least). These models lose more than
# others in single precision, in ONNX Runtime too.
TOLERANCE = 1e-6
TOLERANCES = {"naive-bayes": 5e-6, "support-vectors": 5e-6, "support-vectors-regressor": 5e-6}


def ints_not_bools():
    """skl2onnx writes flags as bool, which Protocol Buffers 7 no longer takes for int."""
    make = onnx.helper.make_attribute

    def make_attribute(key, value, *args, **kwargs):
        if isinstance(value, (list, tuple)) and any(isinstance(v, (bool, np.bool_)) for v in value):
            value = [int(v) for v in value]
        return make(key, value, *args, **kwargs)

    onnx.helper.make_attribute = make_attribute


class Data:
    """Rows of noise, and answers that depend on them in ways that trees, lines and curves all can learn in part."""

    def __init__(self, random):
        rows = TRAINED_ON + ASKED
        self.x = random.normal(size=(rows, FEATURES)).astype(np.float32)
        x = self.x
        signal = x[:, 0] + x[:, 1] * x[:, 2] + 0.3 * random.normal(size=rows)
        self.three = (signal > 0).astype(np.int64) + (x[:, 3] > 0.5)
        self.two = (signal > 0).astype(np.int64)
        self.words = np.array(["cat", "dog", "eel"])[self.three]
        self.number = (2 * x[:, 0] + np.sin(3 * x[:, 1]) + 0.1 * random.normal(size=rows)).astype(np.float32)
        self.gaps = x.copy()
        self.gaps[random.random(x.shape) < 0.1] = np.nan
        self.whole = random.integers(0, 6, size=(rows, 4)).astype(np.int64)
        self.of_whole = ((self.whole.sum(axis=1) % 5) > 2).astype(np.int64) + (self.whole[:, 0] > 3)


def models(d):
    """Name, estimator, rows, answers."""
    logistic = LogisticRegression(max_iter=1000)
    forest = RandomForestClassifier(20, random_state=0)
    columns = ColumnTransformer(
        [("scaled", StandardScaler(), [0, 1, 2]), ("binary", Binarizer(), [3]), ("kept", "passthrough", [4, 5, 6, 7])]
    )
    boosted = {"max_iter": 40, "random_state": 0}
    double = d.x.astype(np.float64)
    return [
        ("random-forest", RandomForestClassifier(100, random_state=0), d.x, d.three),
        ("random-forest-binary", RandomForestClassifier(100, random_state=0), d.x, d.two),
        ("random-forest-words", RandomForestClassifier(30, max_depth=6, random_state=0), d.x, d.words),
        ("extra-trees", ExtraTreesClassifier(50, random_state=0), d.x, d.three),
        ("boosting-binary", GradientBoostingClassifier(random_state=0), d.x, d.two),
        ("boosting-multiclass", GradientBoostingClassifier(random_state=0), d.x, d.three),
        ("histogram-binary", HistGradientBoostingClassifier(**boosted), d.gaps, d.two),
        ("histogram-multiclass", HistGradientBoostingClassifier(**boosted), d.gaps, d.three),
        ("histogram-regressor", HistGradientBoostingRegressor(**boosted), d.gaps, d.number),
        ("decision-tree", DecisionTreeClassifier(random_state=0), d.x, d.three),
        ("decision-tree-regressor", DecisionTreeRegressor(random_state=0), d.x, d.number),
        ("random-forest-regressor", RandomForestRegressor(100, random_state=0), d.x, d.number),
        ("boosting-regressor", GradientBoostingRegressor(random_state=0), d.x, d.number),
        ("logistic-binary", logistic, d.x, d.two),
        ("logistic-multinomial", logistic, d.x, d.three),
        ("logistic-words", logistic, d.x, d.words),
        ("linear", LinearRegression(), d.x, d.number),
        ("ridge-of-two", Ridge(), d.x, np.stack([d.number, -3 * d.number], axis=1)),
        ("standard-scaler", make_pipeline(StandardScaler(), logistic), 5 + 3 * d.x, d.three),
        ("min-max-scaler", make_pipeline(MinMaxScaler(), logistic), d.x, d.three),
        ("min-max-scaler-clipped", make_pipeline(MinMaxScaler(clip=True), logistic), d.x, d.three),
        ("max-abs-scaler", make_pipeline(MaxAbsScaler(), forest), d.x, d.three),
        ("robust-scaler", make_pipeline(RobustScaler(), LinearRegression()), d.x, d.number),
        ("normalizer-l2", make_pipeline(Normalizer("l2"), logistic), d.x, d.three),
        ("normalizer-l1", make_pipeline(Normalizer("l1"), logistic), d.x, d.three),
        # ONNX's MAX is the largest, scikit-learn's the largest magnitude.
        ("normalizer-max", make_pipeline(Normalizer("max"), logistic), np.abs(d.x), d.three),
        ("imputer", make_pipeline(SimpleImputer(), forest), d.gaps, d.words),
        ("one-hot", make_pipeline(OneHotEncoder(handle_unknown="ignore"), logistic), d.whole, d.of_whole),
        ("ordinal", make_pipeline(OrdinalEncoder(), forest), d.whole, d.of_whole),
        ("columns", make_pipeline(columns, logistic), d.x, d.words),
        ("pca", make_pipeline(PCA(4, random_state=0), logistic), d.x, d.three),
        ("polynomial", make_pipeline(PolynomialFeatures(2), LinearRegression()), d.x[:, :3], d.number),
        ("bagging", BaggingClassifier(n_estimators=5, random_state=0), d.x, d.three),
        ("ada-boost", AdaBoostClassifier(n_estimators=10, random_state=0), d.x, d.three),
        ("calibrated", CalibratedClassifierCV(LogisticRegression(), cv=3), d.x, d.three),
        ("naive-bayes", GaussianNB(), d.x, d.three),
        ("perceptron", MLPClassifier((16,), max_iter=300, random_state=0), d.x, d.three),
        ("support-vectors", SVC(probability=True, random_state=0), d.x, d.two),
        ("support-vectors-regressor", SVR(), d.x, d.number),
        ("double-random-forest", RandomForestClassifier(30, random_state=0), double, d.three),
    ]


def write(directory, name, estimator, x, y):
    estimator.fit(x[:TRAINED_ON], y[:TRAINED_ON])
    asked = x[TRAINED_ON:]
    is_classifier = hasattr(estimator, "predict_proba")
    plain = {"options": {id(estimator): {"zipmap": False}}} if is_classifier else {}
    (directory / f"{name}.onnx").write_bytes(to_onnx(estimator, x[:1], **plain).SerializeToString())
    if is_classifier:
        (directory / f"{name}.zipmap.onnx").write_bytes(to_onnx(estimator, x[:1]).SerializeToString())
        scores = estimator.predict_proba(asked)
        labels = "".join(f"{label}\n" for label in estimator.predict(asked))
        (directory / f"{name}.labels").write_text(labels)
    else:
        scores = estimator.predict(asked).reshape(ASKED, -1)
    (directory / f"{name}.input").write_bytes(np.ascontiguousarray(asked).tobytes())
    (directory / f"{name}.scores").write_bytes(scores.astype("<f8").tobytes())
    datatype = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}[str(asked.dtype)]
    return {
        "name": name,
        "datatype": datatype,
        "rows": ASKED,
        "columns": asked.shape[1],
        "scores": scores.shape[1],
        "classifier": is_classifier,
        "tolerance": TOLERANCES.get(name, TOLERANCE),
    }


def main():
    warnings.filterwarnings("ignore")
    ints_not_bools()
    directory = Path(sys.argv[1])
    data = Data(np.random.default_rng(20261126))
    written = [write(directory, *model) for model in models(data)]
    (directory / "models.json").write_text(json.dumps(written))


if __name__ == "__main__":
    main()
