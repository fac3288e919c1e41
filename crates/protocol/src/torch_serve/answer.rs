//! Answers: JSON, as TorchServe makes of what a handler returns.

use modelyard_core::TensorSpec;
use serde_json::value::RawValue;

use crate::nested::{self, Members, NestedError};
use crate::tensor::Tensor;

/// How outputs are answered, by how inputs were given. One output is bare; several are an object by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// One row was given: its own is answered.
    Row,
    /// A list of rows.
    Rows,
    /// `{"predictions": [row, …]}`, for `{"instances": …}`.
    Predictions,
    /// Whole tensors were given, and are answered.
    Whole,
}

impl Reply {
    /// The answer, and what is in it, for those who read it without knowing the model ([`read_answer`]).
    ///
    /// # Errors
    /// If rows were asked for, and the outputs are not by row.
    pub fn write(self, outputs: &[Tensor]) -> Result<(Vec<u8>, Vec<TensorSpec>), NestedError> {
        let mut body = Vec::new();
        match self {
            Self::Row if outputs.iter().all(|output| output.rows() == Some(1)) => {
                nested::write_row(&mut body, outputs, 0);
            }
            Self::Row | Self::Whole => nested::write_columns(&mut body, outputs),
            Self::Rows => nested::write_rows(&mut body, outputs)?,
            Self::Predictions => {
                body.extend_from_slice(b"{\"predictions\":");
                nested::write_rows(&mut body, outputs)?;
                body.push(b'}');
            }
        }
        Ok((body, nested::describe(outputs)))
    }
}

/// The tensors of an answer that [`Reply::write`] wrote and described.
///
/// # Errors
/// If it is another one.
pub fn read_answer(body: &[u8], described: &[TensorSpec]) -> Result<Vec<Tensor>, NestedError> {
    let text = nested::strict(body)?;
    let value: &RawValue = serde_json::from_str(&text)?;
    let members: Option<Members<'_>> = serde_json::from_str(value.get()).ok();
    let is_enveloped = described.iter().all(|output| output.name != "predictions");
    let enveloped = members.as_ref().and_then(|members| members.get("predictions")).filter(|_| is_enveloped);
    nested::described(enveloped.map_or(value.get(), |rows| rows.get()), described)
}
