//! Paths of requests.

use modelyard_protocol::{ModelAction, V2Path, parse_path};

pub(crate) fn any(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    let Some(parsed) = parse_path(path) else { return };
    let written = match parsed {
        V2Path::Server => "/v2".to_owned(),
        V2Path::Live => "/v2/health/live".to_owned(),
        V2Path::Ready => "/v2/health/ready".to_owned(),
        V2Path::RepositoryIndex => "/v2/repository/index".to_owned(),
        V2Path::Model { name, version, action } => {
            // What is no segment of its own would be another path to whoever reads it next.
            assert!(
                !name.is_empty() && !name.contains('/') && version.is_none_or(|v| !v.is_empty() && !v.contains('/'))
            );
            let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
            let action = match action {
                ModelAction::Metadata => "",
                ModelAction::Ready => "/ready",
                ModelAction::Infer => "/infer",
            };
            format!("/v2/models/{name}{version}{action}")
        }
    };
    assert_eq!(parse_path(&written), Some(parsed));
    // But for a slash at its end, a path has one form.
    assert_eq!(path.strip_suffix('/').unwrap_or(path), written);
}
