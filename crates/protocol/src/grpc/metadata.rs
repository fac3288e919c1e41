//! Metadata of models.

use modelyard_core::TensorSpec;

use super::messages::ModelMetadataResponse;
use super::messages::model_metadata_response::TensorMetadata;
use crate::ModelMetadata;

pub fn write_metadata(metadata: ModelMetadata) -> ModelMetadataResponse {
    let tensor = |spec: TensorSpec| TensorMetadata {
        name: spec.name,
        datatype: spec.datatype.as_str().into(),
        shape: spec.shape,
    };
    ModelMetadataResponse {
        name: metadata.name,
        versions: metadata.versions,
        platform: metadata.platform,
        inputs: metadata.inputs.into_iter().map(tensor).collect(),
        outputs: metadata.outputs.into_iter().map(tensor).collect(),
        properties: Default::default(),
    }
}
