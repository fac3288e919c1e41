//! Why the cluster did not do what was asked.

use modelyard_runtime::RuntimeError;

#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// No kubeconfig, no in-cluster account, or one that cannot be read.
    #[error("no cluster is configured: {0}")]
    NotConfigured(String),
    #[error("the API server does not answer: {0}")]
    Unavailable(String),
    /// The API server said no: admission, quota of objects, rights, or a value it does not take.
    #[error("{0}")]
    Refused(String),
    /// What was written is no longer as it was when it was read.
    #[error("it has changed meanwhile: {0}")]
    Conflict(String),
    #[error("there is no {0}")]
    NotFound(String),
}

impl From<kube::Error> for KubeError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let (reason, message) = (status.reason, status.message);
                let text = if reason.is_empty() { message } else { format!("{reason}: {message}") };
                match status.code {
                    404 => Self::NotFound(text),
                    409 => Self::Conflict(text),
                    408 | 429 | 500.. => Self::Unavailable(text),
                    _ => Self::Refused(text),
                }
            }
            other => Self::Unavailable(chain(&other)),
        }
    }
}

/// An error with all that led to it: the outermost alone says little (`client error (Connect)`).
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}

impl From<KubeError> for RuntimeError {
    fn from(error: KubeError) -> Self {
        match error {
            KubeError::NotFound(what) => Self::NotFound(what),
            KubeError::Refused(why) | KubeError::Conflict(why) => Self::Refused(why),
            KubeError::Unavailable(why) | KubeError::NotConfigured(why) => Self::Unavailable(why),
        }
    }
}
