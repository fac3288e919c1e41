//! Manifests: text to documents, or to problems that say where they are.

use modelyard_core::manifest::{self, DeploymentManifest, ModelManifest, Resource, VersionManifest};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn documents(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (documents, problems) = manifest::examine(text);
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    for problem in &problems {
        assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)), "of {lines} lines: {problem}");
        assert!(!problem.message.is_empty());
        assert!(!problem.to_string().contains('\0'));
    }
    for document in &documents {
        assert!(!document.resource.name().is_empty());
        match &document.resource {
            Resource::Model(model) => round::<ModelManifest>(model),
            Resource::ModelVersion(version) => round::<VersionManifest>(version),
            Resource::ModelDeployment(deployment) => {
                round::<DeploymentManifest>(deployment);
                // A document is read as far as it can be, whatever problems it has.
                let strategy = Some(&deployment.spec.strategy).filter(|_| problems.is_empty());
                let Some(strategy) = strategy else { continue };
                let written = modelyard_core::yaml::to_string(strategy).expect("a strategy is written");
                assert_eq!(manifest::parse_strategy(&written).as_ref(), Ok(strategy), "{written}");
            }
        }
    }
    match manifest::parse(text) {
        Ok(parsed) => assert_eq!((parsed, problems), (documents, Vec::new())),
        Err(found) => assert_eq!(found, problems),
    }
}

/// As the database keeps them.
fn round<T: Serialize + DeserializeOwned + std::fmt::Debug + PartialEq>(value: &T) {
    let written = serde_json::to_string(value).expect("a manifest is written");
    let again: T = serde_json::from_str(&written).expect("what was written is read");
    assert_eq!(&again, value);
}
