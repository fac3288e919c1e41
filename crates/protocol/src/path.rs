//! Paths of the protocol, taken apart without allocating. Knows nothing of which models exist.

/// What a path of the protocol names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V2Path<'a> {
    /// `/v2`: metadata of the server.
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2/repository/index`, a `POST`
    RepositoryIndex,
    /// `/v2/models/{name}[/versions/{version}][/ready|/infer]`
    Model { name: &'a str, version: Option<&'a str>, action: ModelAction },
}

/// What is asked of a model. `GET`, but for [`ModelAction::Infer`], which is a `POST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelAction {
    Metadata,
    Ready,
    Infer,
}

/// Takes the path of a request apart (without query). `None` if it is not one of the protocol's.
///
/// Names and versions come back as they are written: those of Modelyard need no percent-encoding, so an encoded one
/// names nothing that exists.
pub fn parse_path(path: &str) -> Option<V2Path<'_>> {
    let rest = path.strip_prefix("/v2")?;
    if let Some(rest) = rest.strip_prefix("/models/") {
        return parse_model(rest);
    }
    match rest {
        "" | "/" => Some(V2Path::Server),
        "/health/live" => Some(V2Path::Live),
        "/health/ready" => Some(V2Path::Ready),
        "/repository/index" => Some(V2Path::RepositoryIndex),
        _ => None,
    }
}

fn parse_model(rest: &str) -> Option<V2Path<'_>> {
    let (name, rest) = split(rest);
    let (version, rest) = match rest.strip_prefix("versions/") {
        Some(rest) => {
            let (version, rest) = split(rest);
            (Some(version), rest)
        }
        None => (None, rest),
    };
    let action = match rest {
        "" => ModelAction::Metadata,
        "ready" => ModelAction::Ready,
        "infer" => ModelAction::Infer,
        _ => return None,
    };
    if name.is_empty() || version == Some("") {
        return None;
    }
    Some(V2Path::Model { name, version, action })
}

/// What is done with a model of a repository (Triton's model repository extension). A `POST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryAction {
    Load,
    Unload,
}

/// Takes `/v2/repository/models/{name}/load` or `/unload` apart. Those who serve no repository know no such path.
pub fn parse_repository_path(path: &str) -> Option<(&str, RepositoryAction)> {
    let (name, action) = path.strip_prefix("/v2/repository/models/")?.split_once('/')?;
    let action = match action {
        "load" => RepositoryAction::Load,
        "unload" => RepositoryAction::Unload,
        _ => return None,
    };
    (!name.is_empty()).then_some((name, action))
}

fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or((path, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model<'a>(name: &'a str, version: Option<&'a str>, action: ModelAction) -> Option<V2Path<'a>> {
        Some(V2Path::Model { name, version, action })
    }

    #[test]
    fn paths_of_the_protocol_are_taken_apart() {
        assert_eq!(parse_path("/v2"), Some(V2Path::Server));
        assert_eq!(parse_path("/v2/health/live"), Some(V2Path::Live));
        assert_eq!(parse_path("/v2/health/ready"), Some(V2Path::Ready));
        assert_eq!(parse_path("/v2/repository/index"), Some(V2Path::RepositoryIndex));
        assert_eq!(parse_path("/v2/models/m"), model("m", None, ModelAction::Metadata));
        assert_eq!(parse_path("/v2/models/m/ready"), model("m", None, ModelAction::Ready));
        assert_eq!(parse_path("/v2/models/m/infer"), model("m", None, ModelAction::Infer));
        assert_eq!(parse_path("/v2/models/m/versions/v10"), model("m", Some("v10"), ModelAction::Metadata));
        assert_eq!(parse_path("/v2/models/m/versions/2/infer"), model("m", Some("2"), ModelAction::Infer));
        assert_eq!(parse_path("/v2/models/ready/ready"), model("ready", None, ModelAction::Ready));
        assert_eq!(parse_path("/v2/models/m/versions/ready/ready"), model("m", Some("ready"), ModelAction::Ready));
    }

    #[test]
    fn actions_on_a_repository_are_taken_apart() {
        let load = parse_repository_path("/v2/repository/models/m/load");
        assert_eq!(load, Some(("m", RepositoryAction::Load)));
        let unload = parse_repository_path("/v2/repository/models/load/unload");
        assert_eq!(unload, Some(("load", RepositoryAction::Unload)));
        for path in ["/v2/repository/models//load", "/v2/repository/models/m", "/v2/repository/models/m/load/x"] {
            assert_eq!(parse_repository_path(path), None, "{path}");
        }
    }

    #[test]
    fn other_paths_are_none_of_ours() {
        for path in
            ["", "/", "/v1/models/m", "/v2x", "/v2/models", "/v2/models/", "/v2/models//infer", "/v2/models/m/versions"]
        {
            assert_eq!(parse_path(path), None, "{path}");
        }
        for path in ["/v2/models/m/versions/", "/v2/models/m/versions//infer", "/v2/models/m/infer/x", "/v2/health"] {
            assert_eq!(parse_path(path), None, "{path}");
        }
    }
}
