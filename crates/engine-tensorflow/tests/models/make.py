"""Makes the graphs of this directory, and TensorFlow's own answers to random inputs, and the example moons.pb.

    pip install tensorflow-cpu==2.21.0 && python make.py ../../../../manifests/examples
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

keras.utils.set_random_seed(7)
random = np.random.default_rng(7)


def frozen(model, shape):
    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="x"))
    return convert_variables_to_constants_v2(concrete)


def write(name, model, shape, rows):
    graph = frozen(model, shape)
    with open(name + ".pb", "wb") as file:
        file.write(graph.graph.as_graph_def().SerializeToString(deterministic=True))
    cases = []
    for count in rows:
        x = random.normal(size=[count, *shape[1:]]).astype(np.float32)
        y = graph(tf.constant(x))
        y = (y[0] if isinstance(y, (list, tuple)) else y).numpy()
        cases.append({"x": [float(v) for v in x.flatten()], "rows": count,
                      "y": [float(v) for v in y.flatten()], "shape": list(y.shape)})
    with open(name + ".json", "w") as file:
        json.dump(cases, file)
    ops = sorted({node.op for node in graph.graph.as_graph_def().node})
    print(name, len(graph.graph.as_graph_def().node), "nodes:", *ops)


def settle(model, shape):
    """Statistics of batch normalisation that are not those of the start."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.normal(1, 0.2, w.shape) ** 2 + 0.1 for w in layer.get_weights()])
    return model


mlp = keras.Sequential([
    keras.Input([16]),
    layers.Dense(32, "relu"), layers.Dense(24, "gelu"), layers.Dense(16, "tanh"), layers.Dense(12, "elu"),
    layers.LayerNormalization(), layers.Dense(8, "selu"), layers.Dense(8, "leaky_relu"),
    layers.Dense(4, "softmax"),
])
write("mlp", mlp, [None, 16], [1, 5])

cnn = settle(keras.Sequential([
    keras.Input([16, 16, 3]),
    layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization(), layers.ReLU(6.0),
    layers.Conv2D(8, 3, strides=2, activation="sigmoid"), layers.MaxPooling2D(2, strides=1),
    layers.DepthwiseConv2D(3, padding="same"),
    layers.AveragePooling2D(2, padding="same"), layers.ZeroPadding2D(1), layers.Flatten(),
    layers.Dense(10, "softmax"),
]), None)
write("cnn", cnn, [None, 16, 16, 3], [1, 3])

dilated = keras.Sequential([keras.Input([9, 9, 2]), layers.Conv2D(3, 3, dilation_rate=2, activation="relu")])
write("dilated", dilated, [None, 9, 9, 2], [2])

if len(sys.argv) > 1:
    angle = random.uniform(0, np.pi, 4000)
    moon = random.integers(0, 2, 4000)
    x = np.stack([np.where(moon, 1 - np.cos(angle), np.cos(angle)), np.where(moon, 0.5 - np.sin(angle), np.sin(angle))], 1)
    x = (x + random.normal(0, 0.1, x.shape)).astype(np.float32)
    moons = keras.Sequential([keras.Input([2]), layers.Dense(16, "relu"), layers.Dense(8, "relu"), layers.Dense(2, "softmax")])
    moons.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    moons.fit(x, moon, epochs=30, verbose=0)
    print("moons", moons.evaluate(x, moon, verbose=0))
    graph = frozen(moons, [None, 2])
    with open(sys.argv[1] + "/moons.pb", "wb") as file:
        file.write(graph.graph.as_graph_def().SerializeToString(deterministic=True))
