//! Paths of all protocols, and what they have in common.

use crate::path::{self, ModelAction, V2Path};
use crate::tf_serving::{self, TfAction, TfPath};
use crate::torch_serve::{self, TorchPath};

/// Whose form an error has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    OpenInference,
    TfServing,
    TorchServe,
}

/// A path of one of the protocols. They share none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnyPath<'a> {
    OpenInference(V2Path<'a>),
    TfServing(TfPath<'a>),
    TorchServe(TorchPath<'a>),
}

/// What a path asks of a model, whichever protocol it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfModel<'a> {
    pub name: &'a str,
    /// `None` for a label, too.
    pub version: Option<&'a str>,
    /// Else it tells of the model. The one is a `POST`, the other a `GET`.
    pub is_inference: bool,
    /// Whether a `PUT` will do for a `POST`: TorchServe's users send files so.
    pub may_put: bool,
}

impl<'a> AnyPath<'a> {
    /// Takes the path of a request apart (without query). `None` if it is of no protocol.
    pub fn parse(path: &'a str) -> Option<Self> {
        let open = || path::parse_path(path).map(Self::OpenInference);
        let tensorflow = || tf_serving::parse_path(path).map(Self::TfServing);
        open().or_else(tensorflow).or_else(|| torch_serve::parse_path(path).map(Self::TorchServe))
    }

    pub fn protocol(&self) -> Protocol {
        match self {
            Self::OpenInference(_) => Protocol::OpenInference,
            Self::TfServing(_) => Protocol::TfServing,
            Self::TorchServe(_) => Protocol::TorchServe,
        }
    }

    /// `None` for what is asked of the server.
    pub fn model(&self) -> Option<OfModel<'a>> {
        match *self {
            Self::OpenInference(V2Path::Model { name, version, action }) => {
                Some(OfModel { name, version, is_inference: action == ModelAction::Infer, may_put: false })
            }
            Self::TfServing(TfPath::Model { name, pin, action }) => Some(OfModel {
                name,
                version: pin.version(),
                is_inference: matches!(action, TfAction::Run(_)),
                may_put: false,
            }),
            Self::TorchServe(TorchPath::Predictions { name, version }) => {
                Some(OfModel { name, version, is_inference: true, may_put: true })
            }
            Self::OpenInference(_) | Self::TfServing(_) | Self::TorchServe(TorchPath::Ping) => None,
        }
    }
}
