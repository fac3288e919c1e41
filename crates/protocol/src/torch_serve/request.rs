//! Which body becomes which tensors.

use modelyard_core::{Datatype, Signature, TensorSpec};

use super::Reply;
use crate::binary;
use crate::nested::{self, Members, NestedError, form};
use crate::tensor::Tensor;

/// A body, or a part of one that is a form.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Of a form's part.
    pub name: Option<&'a str>,
    pub content_type: Option<&'a str>,
    pub data: &'a [u8],
}

/// What a request comes to.
#[derive(Debug, PartialEq)]
pub struct Asked {
    pub inputs: Vec<Tensor>,
    pub reply: Reply,
}

/// Members and parts that stand for the whole of what is asked, as TorchServe's own handlers take them.
const DATA: [&str; 2] = ["data", "body"];

/// What a content type says of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Json,
    Binary,
    /// Nothing that can be relied on: `curl` says nothing of files (`-T`), the wrong thing of text (`-d`), and of any
    /// file in a form (`-F`) that it is `application/octet-stream`.
    Open,
}

impl Content {
    fn of(part: &Part<'_>) -> Self {
        let media = part.content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        let media = media.trim().to_ascii_lowercase();
        let is = |prefix: &str| media.starts_with(prefix);
        if media == "application/json" || media.ends_with("+json") {
            Self::Json
        } else if (media == "application/octet-stream" && part.name.is_none())
            || is("image/")
            || is("audio/")
            || is("video/")
        {
            Self::Binary
        } else {
            Self::Open
        }
    }
}

/// Reads a request of one body or, if it is a form, of several parts.
///
/// JSON is a tensor, or a row of one, by its depth; an object names inputs, or has `data` for all of it, or `instances`
/// for a list of rows. Other bytes are those of the model's one input: a string of BYTES, else elements in little-endian
/// order, as a batch of one. Where nothing says which of both a body is, it is JSON if the input is of numbers (UINT8
/// apart, which images are) and the body can be JSON.
///
/// A form's parts are each such a body: of the input that a part is named after, or, named `data`, each an instance.
///
/// # Errors
/// If it is not of such a form, or does not fit the model. That shapes fit is left to the engine.
pub fn read(parts: &[Part<'_>], signature: &Signature) -> Result<Asked, NestedError> {
    let specs = &*signature.inputs;
    match parts {
        [] => form("the form has no part `data`"),
        [one] => read_part(one, specs),
        several => read_form(several, specs),
    }
}

fn read_form(parts: &[Part<'_>], specs: &[TensorSpec]) -> Result<Asked, NestedError> {
    let names: std::collections::BTreeSet<_> = parts.iter().map(|part| part.name).collect();
    let asked = parts.iter().map(|part| read_part(part, specs)).collect::<Result<Vec<_>, _>>()?;
    if names.len() == parts.len() {
        let is_row = asked.iter().all(|asked| asked.reply == Reply::Row);
        let inputs = asked.into_iter().flat_map(|asked| asked.inputs).collect();
        return Ok(Asked { inputs, reply: if is_row { Reply::Row } else { Reply::Whole } });
    }
    if names.len() > 1 {
        return form("a form has parts that are named after inputs, or any number of parts named `data`; not both");
    }
    let Some(first) = asked.first() else { return form("the form has no part `data`") };
    let joined = first.inputs.iter().map(|input| {
        let of_each = asked.iter().map(|asked| asked.inputs.iter().find(|other| other.name == input.name));
        let of_each = of_each.collect::<Option<Vec<_>>>();
        match of_each.and_then(Tensor::join) {
            Some(joined) => Ok(joined),
            None => form(format!("`{}` must be in each part, and its rows of the same shape", input.name)),
        }
    });
    Ok(Asked { inputs: joined.collect::<Result<_, _>>()?, reply: Reply::Rows })
}

fn read_part(part: &Part<'_>, specs: &[TensorSpec]) -> Result<Asked, NestedError> {
    let specs = match part.name {
        None => specs,
        Some(name) => match specs.iter().position(|spec| spec.name == name) {
            Some(place) => specs.get(place..=place).unwrap_or_default(),
            None if DATA.contains(&name) => specs,
            None => return Err(nested::unknown(name, specs)),
        },
    };
    match (Content::of(part), specs) {
        (Content::Json, _) => read_json(&nested::strict(part.data)?, specs),
        (Content::Binary, _) => read_bytes(part.data, specs),
        (Content::Open, [TensorSpec { datatype: Datatype::Bytes | Datatype::Uint8, .. }]) => {
            read_bytes(part.data, specs)
        }
        (Content::Open, _) => match nested::strict(part.data) {
            Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => read_json(&text, specs),
            _ => read_bytes(part.data, specs),
        },
    }
}

fn read_bytes(data: &[u8], specs: &[TensorSpec]) -> Result<Asked, NestedError> {
    let spec = nested::only(specs, "the body")?;
    let input = binary::raw_input(data, std::slice::from_ref(spec));
    let input = input.map_err(|problem| NestedError::Tensor { name: spec.name.clone(), problem })?;
    let reply = if input.rows() == Some(1) { Reply::Row } else { Reply::Whole };
    Ok(Asked { inputs: vec![input], reply })
}

fn read_json(text: &str, specs: &[TensorSpec]) -> Result<Asked, NestedError> {
    if !nested::has_names(text) {
        // Rows by name are a list, too.
        let is_list_of_rows = text.trim_start().strip_prefix('[').is_some_and(nested::has_names_next);
        if is_list_of_rows {
            return Ok(Asked { inputs: nested::rows(text, specs, "the list")?, reply: Reply::Rows });
        }
        let spec = nested::only(specs, "the body")?;
        return Ok(by_depth(vec![(nested::tensor(text, spec)?, spec)]));
    }
    let members: Members<'_> = serde_json::from_str(text)?;
    let is_input = |name: &str| specs.iter().any(|spec| spec.name == name);
    if let Some(rows) = members.get("instances").filter(|_| !is_input("instances")) {
        return Ok(Asked { inputs: nested::rows(rows.get(), specs, "instances")?, reply: Reply::Predictions });
    }
    if let Some(data) = DATA.iter().filter(|name| !is_input(name)).find_map(|name| members.get(*name)) {
        return read_json(data.get(), specs);
    }
    if !is_input("inputs") && members.get("inputs").is_some_and(|inputs| inputs.get().contains("\"datatype\"")) {
        return form("this is a request of the Open Inference Protocol: POST it to /v2/models/{name}/infer");
    }
    let read = |(name, value): (&std::borrow::Cow<'_, str>, &&serde_json::value::RawValue)| {
        let spec = nested::find(name, specs)?;
        Ok((nested::tensor(value.get(), spec)?, spec))
    };
    Ok(by_depth(members.iter().map(read).collect::<Result<_, NestedError>>()?))
}

/// Tensors that all lack one dimension are one row.
fn by_depth(given: Vec<(Tensor, &TensorSpec)>) -> Asked {
    let is_row = given.iter().all(|(tensor, spec)| tensor.shape.len() + 1 == spec.shape.len());
    let inputs = given.into_iter().map(|(mut tensor, _)| {
        if is_row {
            tensor.shape.insert(0, 1);
        }
        tensor
    });
    Asked { inputs: inputs.collect(), reply: if is_row { Reply::Row } else { Reply::Whole } }
}
