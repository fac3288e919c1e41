//! `infer`: one inference through the gateway, by the Open Inference Protocol v2 (REST).

use std::time::Instant;

use anyhow::{Context, bail, ensure};
use modelyard_core::{DeploymentName, TensorSpec, VersionName};
use reqwest::RequestBuilder;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::output::{Format, Output, note, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Infer {
    /// The deployment
    name: DeploymentName,
    /// The input as nested JSON lists, '[[3,4]]'; or a whole request, '{"inputs": […]}'
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    data: Value,
    /// Pin a version, instead of what the rollout picks
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    #[command(flatten)]
    output: Output,
}

// Named, since clap would take a Value's From<String>: every text as a JSON string.
fn json_value(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

pub(super) async fn run(args: Infer, gateway: &str, http: &reqwest::Client) -> anyhow::Result<()> {
    let gateway = gateway.trim_end_matches('/');
    let version = args.version.map_or_else(String::new, |version| format!("/versions/{version}"));
    let url = format!("{gateway}/v2/models/{}{version}", args.name);
    let request = match args.data {
        data @ Value::Object(_) => data,
        data => {
            let (text, _) = answer(http.get(&url), gateway).await?;
            let metadata: Metadata =
                serde_json::from_str(&text).context("the gateway's metadata is not as expected")?;
            request(&metadata.inputs, &data)?
        }
    };
    let begun = Instant::now();
    let (text, headers) = answer(http.post(format!("{url}/infer")).json(&request), gateway).await?;
    let took = begun.elapsed();

    let response: Value = serde_json::from_str(&text).context("the gateway's answer is not JSON")?;
    match args.output.format {
        Format::Table => say(serde_json::to_string(&outputs(&response)?)?)?,
        Format::Json | Format::Yaml => args.output.show(&response, String::new)?,
    }
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
    note(format_args!(
        "variant {}, version {}, {:.1} ms, request {}",
        header("x-modelyard-variant"),
        header("x-modelyard-version"),
        took.as_secs_f64() * 1e3,
        header("x-request-id"),
    ));
    Ok(())
}

/// The text of a successful answer, and its headers.
///
/// # Errors
/// What the gateway says in `error`, by the protocol.
async fn answer(request: RequestBuilder, gateway: &str) -> anyhow::Result<(String, HeaderMap)> {
    let response = request.send().await.map_err(|error| {
        let cause = anyhow::Error::from(error).root_cause().to_string();
        let help = "Is it running there? MODELYARD_GATEWAY says where; `cargo xtask up` starts one on this machine; a port-forward ends with the pod that it leads to";
        anyhow::anyhow!("cannot reach the gateway at {gateway}: {cause}. {help}")
    })?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.context("the gateway's answer broke off")?;
    if !status.is_success() {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
        }
        let why = serde_json::from_str::<Refusal>(&text).map_or_else(|_| text.chars().take(200).collect(), |r| r.error);
        bail!("the gateway answered {status}: {why}");
    }
    Ok((text, headers))
}

#[derive(Debug, Deserialize)]
struct Metadata {
    inputs: Vec<TensorSpec>,
}

#[derive(Debug, Serialize)]
struct Input<'a> {
    name: &'a str,
    datatype: modelyard_core::Datatype,
    shape: Vec<usize>,
    data: Vec<&'a Value>,
}

/// The request for a model of one input.
fn request(inputs: &[TensorSpec], data: &Value) -> anyhow::Result<Value> {
    let [input] = inputs else {
        let names: Vec<String> = inputs.iter().map(ToString::to_string).collect();
        bail!("the model takes {} inputs; give --data as {{\"inputs\": […]}} with: {}", inputs.len(), names.join("; "));
    };
    let shape = shape(data);
    let mut flat = Vec::new();
    flatten(data, &shape, &mut flat)?;
    let input = Input { name: &input.name, datatype: input.datatype, shape, data: flat };
    Ok(json!({ "inputs": [input] }))
}

/// The lengths of the lists, by the first element of each.
fn shape(data: &Value) -> Vec<usize> {
    let mut shape = Vec::new();
    let mut at = data;
    while let Value::Array(items) = at {
        shape.push(items.len());
        match items.first() {
            Some(first) => at = first,
            None => break,
        }
    }
    shape
}

/// Row-major elements of lists that all have the shape's lengths.
fn flatten<'a>(data: &'a Value, shape: &[usize], flat: &mut Vec<&'a Value>) -> anyhow::Result<()> {
    match (data, shape.split_first()) {
        (Value::Array(items), Some((wanted, rest))) => {
            ensure!(items.len() == *wanted, "--data is ragged: a list of {} among lists of {wanted}", items.len());
            items.iter().try_for_each(|item| flatten(item, rest, flat))
        }
        (Value::Array(_), None) | (_, Some(_)) => bail!("--data is ragged: lists and values side by side"),
        (Value::Object(_) | Value::Null, None) => bail!("--data may hold numbers, strings and booleans, not {data}"),
        (value, None) => {
            flat.push(value);
            Ok(())
        }
    }
}

/// Each output's data by its name, nested as its shape says.
fn outputs(response: &Value) -> anyhow::Result<serde_json::Map<String, Value>> {
    #[derive(Deserialize)]
    struct Answer {
        outputs: Vec<Tensor>,
    }
    #[derive(Deserialize)]
    struct Tensor {
        name: String,
        shape: Vec<usize>,
        data: Vec<Value>,
    }
    let answer = Answer::deserialize(response).context("the gateway's answer is not as the protocol says")?;
    let nested = |tensor: Tensor| {
        // The protocol lets servers nest the data themselves.
        let flat = tensor.shape.iter().product::<usize>() == tensor.data.len();
        let data = if flat { nest(tensor.data, &tensor.shape) } else { Value::Array(tensor.data) };
        (tensor.name, data)
    };
    Ok(answer.outputs.into_iter().map(nested).collect())
}

fn nest(mut flat: Vec<Value>, shape: &[usize]) -> Value {
    // From the innermost dimension outward, each pass folds a row into one list.
    for &length in shape.iter().skip(1).rev() {
        if length == 0 {
            break;
        }
        let rows = flat.chunks(length).map(|row| Value::Array(row.to_vec())).collect();
        flat = rows;
    }
    match shape {
        [] => flat.into_iter().next().unwrap_or(Value::Null),
        _ => Value::Array(flat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelyard_core::Datatype;

    fn input(name: &str) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1, 2] }
    }

    #[test]
    fn nested_lists_become_a_tensor_of_the_models_input() {
        let request = request(&[input("x")], &json!([[3, 4], [5.5, 6]])).unwrap();
        let wanted = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [3, 4, 5.5, 6]}]});
        assert_eq!(request, wanted);
    }

    #[test]
    fn data_that_is_no_tensor_is_refused() {
        for (bad, word) in [
            (json!([[1, 2], [3]]), "ragged"),
            (json!([[1], 2]), "ragged"),
            (json!([1, [2]]), "ragged"),
            (json!([{"a": 1}]), "not {\"a\":1}"),
            (json!([null]), "not null"),
        ] {
            let error = request(&[input("x")], &bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
        let error = request(&[input("x"), input("state")], &json!([1])).unwrap_err().to_string();
        assert!(error.contains("2 inputs") && error.contains("state FP32 [-1, 2]"), "{error}");
    }

    #[test]
    fn outputs_are_nested_by_their_shape() {
        let of = |shape: Value, data: Value| {
            let tensor = json!({"name": "y", "datatype": "FP32", "shape": shape, "data": data});
            outputs(&json!({ "outputs": [tensor] })).unwrap()["y"].clone()
        };
        assert_eq!(of(json!([1, 2]), json!([1.5, 2])), json!([[1.5, 2]]));
        assert_eq!(of(json!([2, 1, 2]), json!([1, 2, 3, 4])), json!([[[1, 2]], [[3, 4]]]));
        assert_eq!(of(json!([2, 2]), json!([[1, 2], [3, 4]])), json!([[1, 2], [3, 4]]), "nested by the server already");
        assert_eq!(of(json!([3]), json!([1, 2, 3])), json!([1, 2, 3]));
        assert_eq!(of(json!([]), json!([7])), json!(7));
        assert_eq!(of(json!([0, 2]), json!([])), json!([]));
        assert_eq!(of(json!([2, 0]), json!([])), json!([]));
    }
}
