//! Checkpoints: everything a cell needs to go on as if nothing had happened, in one safetensors file.
//!
//! Numbers are `f64` tensors, bit for bit. What is not a number stands in the metadata as TOML, whose floats survive the
//! round trip, infinities included. A checkpoint that cannot be read, or belongs to another cell, counts as none.

use super::record::write_whole;
use super::trace::Trace;
use crate::error::{DataError, Error, Result};
use crate::measure::clock::Seconds;
use crate::model::Weights;
use crate::oracle::OraclePosition;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The evaluated iterate with the smallest validation loss so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Its row of the trace.
    pub row: usize,
    /// Its validation loss.
    pub loss: f64,
    /// The parameters reported there.
    pub point: Vec<f64>,
}

/// A cell between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The iterate.
    pub parameters: Vec<f64>,
    /// The optimizer's state by part.
    pub state: BTreeMap<String, Vec<f64>>,
    /// The oracle's position: counters, data order, random stream.
    pub oracle: OraclePosition,
    /// The rows so far.
    pub trace: Trace,
    /// The best iterate so far, where it is asked for.
    pub best: Option<Best>,
    /// The clock.
    pub seconds: Seconds,
    /// Peaks of resident and anonymous memory in bytes.
    pub peaks: [u64; 2],
    /// Training seconds at which the target was reached.
    pub time_to_target: Option<f64>,
}

/// The part that is not tensors.
#[derive(Serialize, Deserialize)]
struct Rest {
    cell: String,
    seconds: Seconds,
    peaks: [u64; 2],
    time_to_target: Option<f64>,
    best: Option<(usize, f64)>,
    oracle: OraclePosition,
}

const REST: &str = "checkpoint";

impl Checkpoint {
    /// Writes the checkpoint of a cell.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Numeric`] where the encoder refuses.
    pub fn write(&self, path: &Path, cell: &str) -> Result<()> {
        let rest = Rest {
            cell: cell.to_owned(),
            seconds: self.seconds,
            peaks: self.peaks,
            time_to_target: self.time_to_target,
            best: self.best.as_ref().map(|best| (best.row, best.loss)),
            oracle: self.oracle.clone(),
        };
        let rest = toml::to_string(&rest).map_err(|error| unwritable(path, &error))?;
        let mut tensors: Tensors<'_> = BTreeMap::new();
        let mut add = |name: String, values| tensors.insert(name, (vec![<[f64]>::len(values)], values));
        add("parameters".into(), &self.parameters);
        if let Some(best) = &self.best {
            add("best".into(), &best.point);
        }
        for (name, part) in &self.state {
            add(format!("state.{name}"), part);
        }
        for (name, column) in self.trace.columns() {
            add(format!("trace.{name}"), column);
        }
        let bytes = encode(path, &tensors, Dtype::F64, HashMap::from([(REST.to_owned(), rest)]))?;
        write_whole(path, &bytes)
    }

    /// Reads the checkpoint of a cell; `None` if there is none that can be used.
    #[must_use]
    pub fn read(path: &Path, cell: &str) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let Weights { tensors, metadata, .. } = decode(&bytes)?;
        let rest: Rest = toml::from_str(metadata.get(REST)?).ok().filter(|rest: &Rest| rest.cell == cell)?;
        let mut tensors: BTreeMap<String, Vec<f64>> =
            tensors.into_iter().map(|(name, (_, values))| (name, values)).collect();
        let parameters = tensors.remove("parameters")?;
        let best = match rest.best {
            Some((row, loss)) => Some(Best { row, loss, point: tensors.remove("best")? }),
            None => None,
        };
        let (mut state, mut columns) = (BTreeMap::new(), BTreeMap::new());
        for (name, values) in tensors {
            if let Some(part) = name.strip_prefix("state.") {
                state.insert(part.to_owned(), values);
            } else if let Some(column) = name.strip_prefix("trace.") {
                columns.insert(column.to_owned(), values);
            }
        }
        Some(Self {
            parameters,
            state,
            oracle: rest.oracle,
            trace: Trace::from_columns(columns)?,
            best,
            seconds: rest.seconds,
            peaks: rest.peaks,
            time_to_target: rest.time_to_target,
        })
    }
}

fn unwritable(path: &Path, error: &dyn std::error::Error) -> Error {
    Error::Numeric(format!("{}: cannot be encoded: {error}", path.display()))
}

/// Tensors by name: shape and values.
type Tensors<'a> = BTreeMap<String, (Vec<usize>, &'a [f64])>;

fn encode(path: &Path, tensors: &Tensors<'_>, dtype: Dtype, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let little_endian = |values: &[f64]| match dtype {
        Dtype::F32 => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    let bytes: Vec<(&str, &[usize], Vec<u8>)> =
        tensors.iter().map(|(name, (shape, values))| (name.as_str(), &shape[..], little_endian(values))).collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| Ok((*name, TensorView::new(dtype, shape.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| unwritable(path, &error))?;
    let encoded = safetensors::serialize(views, Some(metadata)).map_err(|error| unwritable(path, &error))?;
    with_sorted_header(&encoded).ok_or_else(|| unwritable(path, &std::fmt::Error))
}

/// The same file with the keys of its header in order: the library writes metadata in the order of a hash map, and equal
/// numbers should make equal files.
fn with_sorted_header(encoded: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = encoded.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_slice(header).ok()?;
    let mut header = serde_json::to_vec(&header).ok()?;
    // Data start at a multiple of eight; the format fills up with spaces.
    header.resize(header.len().next_multiple_of(8), b' ');
    Some([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
}

/// The `f64` or `f32` tensors and the metadata of a safetensors file; `None` if it is none.
fn decode(bytes: &[u8]) -> Option<Weights> {
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let mut weights = Weights::default();
    for (name, view) in SafeTensors::deserialize(bytes).ok()?.tensors() {
        let values = match view.dtype() {
            Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|&number| f64::from_le_bytes(number)).collect(),
            Dtype::F32 => {
                weights.single_precision = true;
                view.data().as_chunks::<4>().0.iter().map(|&number| f64::from(f32::from_le_bytes(number))).collect()
            }
            _ => return None,
        };
        weights.tensors.insert(name, (view.shape().to_vec(), values));
    }
    weights.metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Some(weights)
}

/// Writes fitted weights as safetensors: tensors in the precision in which they were fitted, text as metadata.
///
/// # Errors
/// [`Error::Io`]; [`Error::Numeric`] where the encoder refuses.
pub fn write_weights(path: &Path, weights: &Weights) -> Result<()> {
    let tensors =
        weights.tensors.iter().map(|(name, (shape, values))| (name.clone(), (shape.clone(), &values[..]))).collect();
    let metadata = weights.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let dtype = if weights.single_precision { Dtype::F32 } else { Dtype::F64 };
    write_whole(path, &encode(path, &tensors, dtype, metadata)?)
}

/// Reads fitted weights.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] if it does not hold weights.
pub fn read_weights(path: &Path) -> Result<Weights> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    decode(&bytes).ok_or_else(|| {
        let remedy = "give the folder of a cell whose weights.safetensors this program wrote";
        DataError::new(
            path,
            "it does not hold 32-bit or 64-bit floating-point tensors in the safetensors format",
            remedy,
        )
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Finding, Layout, Oracle, Problem, Vector};
    use std::sync::Arc;

    struct Nothing(Arc<Layout>);

    impl Problem for Nothing {
        fn layout(&self) -> &Arc<Layout> {
            &self.0
        }
        fn rows(&self) -> usize {
            10
        }
        fn gradient_flops(&self) -> f64 {
            1.0
        }
        fn initial(&self, _: &mut rand_chacha::ChaCha8Rng) -> Vector {
            Vector::zeros(&self.0)
        }
    }

    #[test]
    fn a_checkpoint_survives_the_round_trip_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let problem = Nothing(Layout::new([("a", 1, 2)]));
        let mut oracle = Oracle::new(&problem, "none", &[], 3, 1);
        oracle.begin_step();
        oracle.next_batch(7);
        oracle.draw_rows(3);
        oracle.note("damping", f64::INFINITY);
        oracle.note("step_size", 0.1 + 0.2);
        oracle.find(Finding {
            kind: "rank-deficiency".into(),
            message: "two \"columns\"\nare one".into(),
            columns: vec!["a".into()],
            direction: BTreeMap::from([("a".into(), 1e-300)]),
        });
        let mut trace = Trace::default();
        trace.push([("step", 0.0), ("objective", 0.1 + 0.2)]);
        let checkpoint = Checkpoint {
            parameters: vec![f64::MIN_POSITIVE, -0.0],
            state: BTreeMap::from([("history".into(), vec![]), ("k".into(), vec![1.0])]),
            oracle: oracle.position(),
            trace,
            best: Some(Best { row: 0, loss: 0.3, point: vec![1.0, 2.0] }),
            seconds: Seconds { training: 1.25, ..Seconds::default() },
            peaks: [7, 8],
            time_to_target: None,
        };
        checkpoint.write(&path, "cell").unwrap();
        let read = Checkpoint::read(&path, "cell").unwrap();
        assert_eq!(read.oracle, checkpoint.oracle);
        assert_eq!(
            (&read.parameters, &read.state, &read.best),
            (&checkpoint.parameters, &checkpoint.state, &checkpoint.best)
        );
        assert_eq!(read.parameters[1].to_bits(), (-0.0_f64).to_bits());
        assert_eq!((read.seconds, read.peaks), (checkpoint.seconds, checkpoint.peaks));
        assert_eq!(read.trace.columns()["objective"], [0.1 + 0.2]);
        assert_eq!(Checkpoint::read(&path, "another"), None);

        // No damage makes it panic or be taken for whole.
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 8, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(Checkpoint::read(&path, "cell"), None, "cut at {cut}");
        }
    }
}
