//! ArrayFeatureExtractor, FeatureVectorizer and ZipMap: columns chosen, put side by side, and given names.

use modelyard_protocol::TensorData;

use super::attributes::Attributes;
use super::operators::{Inputs, Kernel, Refusal, single};
use super::scores::Labels;
use super::value::{Answer, Value, elements, index, pick};

/// The columns of the last dimension that the second input names.
pub(super) fn extract(inputs: &Inputs<'_>) -> Answer<Value> {
    let (x, chosen) = (inputs.get(0)?, inputs.get(1)?.integers()?);
    let Some((columns, rows)) = x.shape.split_last() else { return Err("it takes no scalar".into()) };
    let one = |i: &i64| if *i < 0 { Err(format!("index {i} is negative")) } else { index(*i, *columns) };
    let chosen = chosen.iter().map(one).collect::<Answer<Vec<usize>>>()?;
    // Of a vector it makes a matrix of one row.
    let shape = if rows.is_empty() { vec![1, chosen.len()] } else { [rows, &[chosen.len()]].concat() };
    let count = elements(&shape)?;
    let mut places = Vec::with_capacity(count);
    for row in 0..count.checked_div(chosen.len()).unwrap_or(0) {
        places.extend(chosen.iter().map(|column| row * columns + column));
    }
    Value::new(shape, pick(&x.data, &places)?)
}

/// The columns of all inputs side by side, those of each cut or filled up with zeros to its `inputdimensions`.
pub(super) fn vectorizer(a: &Attributes) -> Result<Kernel, Refusal> {
    let widths = a.ints("inputdimensions").iter().map(|w| usize::try_from(*w));
    let widths = widths.collect::<Result<Vec<_>, _>>().map_err(|_| "an input dimension is negative")?;
    if widths.is_empty() {
        return Err("it has no input dimensions".into());
    }
    let width = widths.iter().try_fold(0_usize, |n, w| n.checked_add(*w)).ok_or("its dimensions are absurd")?;
    Ok(single(move |inputs| {
        let values = inputs.all()?;
        if values.len() != widths.len() {
            return Err(format!("it has {} inputs, but dimensions for {}", values.len(), widths.len()));
        }
        let (rows, _) = values[0].matrix()?;
        let mut y = vec![0.0; elements(&[rows, width])?];
        let mut start = 0;
        for (value, width_in) in values.iter().zip(&widths) {
            let (found, columns) = value.matrix()?;
            if found != rows {
                return Err(format!("an input has {found} rows, but the first has {rows}"));
            }
            let taken = columns.min(*width_in);
            for (row, x) in value.floats()?.chunks_exact(columns.max(1)).enumerate() {
                let at = row * width + start;
                y[at..at + taken].copy_from_slice(&x[..taken]);
            }
            start += width_in;
        }
        Value::new(vec![rows, width], TensorData::Fp32(y))
    }))
}

/// The probabilities as they come, [rows, classes]: a sequence of maps is no tensor. Which class a column is, says the
/// order of the labels.
pub(super) fn zip_map(a: &Attributes) -> Result<Kernel, Refusal> {
    let classes = Labels::of(a, "classlabels_int64s")?.len();
    Ok(single(move |inputs| {
        let x = inputs.get(0)?;
        let (rows, columns) = x.matrix()?;
        if columns != classes {
            return Err(format!("it has labels for {classes} classes, but scores for {columns}"));
        }
        Value::new(vec![rows, columns], TensorData::Fp32(x.floats()?.into_owned()))
    }))
}
