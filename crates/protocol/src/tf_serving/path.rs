//! Paths below `/v1/models`. Words are taken in any case, as TF Serving does; names and versions are not.

use super::Verb;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TfPath<'a> {
    /// `/v1/models`: what there is. KServe's (V1), which TF Serving lacks.
    Models,
    /// `/v1/models/{name}[/versions/{v}|/labels/{l}][/metadata|:predict|:classify|:regress]`
    Model { name: &'a str, pin: Pin<'a>, action: TfAction },
    /// Below `/v1/models/`, and nothing of the protocol's.
    Malformed,
}

/// Which version is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin<'a> {
    Any,
    Version(&'a str),
    /// A movable name.
    Label(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TfAction {
    /// A `GET`
    Status,
    /// A `GET`
    Metadata,
    /// A `POST`
    Run(Verb),
}

impl TfAction {
    /// How a path ends that asks for it.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Status => "",
            Self::Metadata => "/metadata",
            Self::Run(Verb::Predict) => ":predict",
            Self::Run(Verb::Classify) => ":classify",
            Self::Run(Verb::Regress) => ":regress",
        }
    }
}

impl<'a> Pin<'a> {
    pub fn version(self) -> Option<&'a str> {
        match self {
            Self::Version(version) => Some(version),
            Self::Any | Self::Label(_) => None,
        }
    }
}

/// Takes a path (without query) apart. `None` if it is none of the protocol's.
pub fn parse_path(path: &str) -> Option<TfPath<'_>> {
    let rest = strip(path, "/v1/models")?;
    match rest.strip_prefix('/') {
        None if rest.is_empty() => Some(TfPath::Models),
        None => None,
        Some("") => Some(TfPath::Models),
        Some(rest) => Some(model(rest).unwrap_or(TfPath::Malformed)),
    }
}

fn model(rest: &str) -> Option<TfPath<'_>> {
    let (rest, action) = match rest.split_once(':') {
        Some((rest, verb)) => (rest, TfAction::Run(Verb::parse(verb)?)),
        None => match rest.rsplit_once('/') {
            Some((rest, last)) if last.eq_ignore_ascii_case("metadata") => (rest, TfAction::Metadata),
            _ => (rest, TfAction::Status),
        },
    };
    let mut parts = rest.split('/');
    let name = parts.next()?;
    let pin = match (parts.next(), parts.next()) {
        (None, None) => Pin::Any,
        (Some(kind), Some(version)) if kind.eq_ignore_ascii_case("versions") => Pin::Version(version),
        (Some(kind), Some(label)) if kind.eq_ignore_ascii_case("labels") => Pin::Label(label),
        _ => return None,
    };
    let is_whole = parts.next().is_none() && !name.is_empty() && !matches!(pin, Pin::Version("") | Pin::Label(""));
    is_whole.then_some(TfPath::Model { name, pin, action })
}

impl Verb {
    fn parse(text: &str) -> Option<Self> {
        let verbs = [("predict", Self::Predict), ("classify", Self::Classify), ("regress", Self::Regress)];
        verbs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, verb)| verb)
    }
}

fn strip<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let (begin, rest) = path.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_models_are_taken_apart() {
        let model = |name, pin, action| Some(TfPath::Model { name, pin, action });
        let predict = TfAction::Run(Verb::Predict);
        assert_eq!(parse_path("/v1/models"), Some(TfPath::Models));
        assert_eq!(parse_path("/v1/models/m"), model("m", Pin::Any, TfAction::Status));
        assert_eq!(parse_path("/v1/models/m/versions/3"), model("m", Pin::Version("3"), TfAction::Status));
        assert_eq!(parse_path("/v1/models/m/metadata"), model("m", Pin::Any, TfAction::Metadata));
        assert_eq!(
            parse_path("/v1/models/m/labels/canary/metadata"),
            model("m", Pin::Label("canary"), TfAction::Metadata)
        );
        assert_eq!(parse_path("/v1/models/m:predict"), model("m", Pin::Any, predict));
        assert_eq!(parse_path("/V1/Models/m/Versions/1.2:PREDICT"), model("m", Pin::Version("1.2"), predict));
        assert_eq!(
            parse_path("/v1/models/m/labels/stable:regress"),
            model("m", Pin::Label("stable"), TfAction::Run(Verb::Regress))
        );
    }

    #[test]
    fn what_is_below_and_means_nothing_is_malformed() {
        for path in [
            "/v1/models/m/versions/1/labels/stable:predict",
            "/v1/models/m:explain",
            "/v1/models/:predict",
            "/v1/models/m/versions/:predict",
            "/v1/models/m/versions",
            "/v1/models/m/1",
            "/v1/models/m/metadata:predict",
        ] {
            assert_eq!(parse_path(path), Some(TfPath::Malformed), "{path}");
        }
        for path in ["/v1", "/v1/model", "/v1/modelsx", "/v2/models/m", "", "/v1/modelé"] {
            assert_eq!(parse_path(path), None, "{path}");
        }
    }
}
