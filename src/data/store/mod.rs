//! The store: a dataset written once as `f32` column panels, which every later run maps and uses at once.
//!
//! | bytes | content |
//! |---|---|
//! | 0..16 | `PARSIMONY-STORE` and a newline |
//! | 16..20 | version of the format, little-endian as all numbers here |
//! | 20..24 | zeros |
//! | 24..48 | offset of the header, its length, length of the file (three `u64`) |
//! | 48..80 | SHA-256 of the header |
//! | 80..112 | SHA-256 of bytes 0..80 |
//! | 4096.. | features in panels, as [`crate::device::Panels`] wants them; then, from the next multiple of 4096, targets |
//! | header | JSON: counts, names, classes, provenance, checksums of the data ([`Header`]) |
//!
//! Opening checks the first page, the file's length, the header and that the targets can be such; [`verify`] also
//! compares the SHA-256 of each [`BLOCK_BYTES`] of data. Files are written beside their place and renamed when complete.

mod import;
mod shuffle;
mod writer;

pub use import::{ImportOptions, ImportReport, import};
pub use writer::{StoreLabel, StoreWriter};
pub(in crate::data) use writer::{file_beside, folder_of};

use super::read::{RawTargets, hex, open_file};
use super::{RowOrder, Table, Task};
use crate::device::panels::panel_len;
use crate::device::{PANEL_ROWS, Panels};
use crate::error::{DataError, Error, Result};
use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The first bytes of every store.
pub const MAGIC: &[u8; 16] = b"PARSIMONY-STORE\n";
/// The version this program writes and reads.
pub const VERSION: u32 = 1;
/// Sections start at multiples of this.
const PAGE: u64 = 4096;
/// Bytes of data under one checksum.
pub const BLOCK_BYTES: u64 = 16 << 20;
/// Bytes of the first page that its own checksum covers, and where the page's content ends.
const CHECKED: usize = 80;
const PREAMBLE: usize = CHECKED + 32;

/// Where the data of a store came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The imported file's path, or the generator in words.
    pub source: String,
    /// The options it was read or generated with.
    pub options: serde_json::Value,
    /// The target column as the source has it.
    pub target: Option<String>,
    /// Rows left out because a value was missing.
    pub dropped_rows: u64,
    /// The program that wrote the store, with its version.
    pub program: String,
}

/// What a store says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// As [`Table::name`].
    pub name: String,
    /// As [`Table::simulated`].
    pub simulated: bool,
    /// As [`Table::fingerprint`]: of the source, not of the store.
    pub fingerprint: String,
    /// Number of rows.
    pub rows: usize,
    /// Names of the features.
    pub columns: Vec<String>,
    /// What the targets are, with the names of the classes.
    pub task: Task,
    /// Whether the rows stand as in the source.
    pub order: RowOrder,
    /// Where the data came from.
    pub provenance: Provenance,
    /// SHA-256 of each [`BLOCK_BYTES`] from the features' first byte to the targets' last.
    pub checksums: Vec<String>,
}

/// Byte ranges of the two sections.
struct Sections {
    features: Range<u64>,
    targets: Range<u64>,
}

impl Sections {
    /// The sections of `rows x columns`; `None` if that is more than a file can hold.
    fn of(rows: usize, columns: usize) -> Option<Self> {
        let bytes = |columns: usize| {
            let padded = rows.checked_next_multiple_of(PANEL_ROWS)?;
            u64::try_from(padded.checked_mul(columns)?.checked_mul(4)?).ok().filter(|&bytes| bytes < 1 << 62)
        };
        let features = PAGE..PAGE + bytes(columns)?;
        let start = features.end.next_multiple_of(PAGE);
        let targets = start..start + bytes(1)?;
        Some(Self { features, targets })
    }
}

/// Targets count classes, or are finite: kernels use them as places in memory and trust them.
fn check_targets(path: &Path, targets: &[f32], task: &Task) -> Result<()> {
    let usable = |target: f32| match task {
        Task::Classes(names) => target.fract() == 0.0 && target >= 0.0 && target < names.len() as f32,
        Task::Regression => target.is_finite(),
    };
    let Some(row) = targets.par_iter().position_first(|&target| !usable(target)) else { return Ok(()) };
    let finding = match task {
        Task::Classes(names) => format!("row {} has the class number {}, of {}", row + 1, targets[row], names.len()),
        Task::Regression => format!("row {} has the target {}", row + 1, targets[row]),
    };
    Err(DataError::new(path, format!("the data are damaged: {finding}"), AGAIN).into())
}

/// Opens a store without reading its features.
///
/// # Errors
/// [`DataError`] saying what is wrong if the file is no store, was cut short, is damaged or has another version.
pub fn open(path: &Path) -> Result<Table> {
    let (header, map) = open_map(path)?;
    let map = Arc::new(map);
    let (rows, columns) = (header.rows, header.columns.len());
    // `open_map` has checked that the sections exist and lie within the file.
    let sections = sections_of(path, &header)?;
    let bytes = |range: &Range<u64>| range.start as usize..range.end as usize;
    let targets = Panels::from_map(Arc::clone(&map), bytes(&sections.targets), rows, 1);
    check_targets(path, &targets.values()[..rows], &header.task)?;
    Ok(Table {
        features: Panels::from_map(map, bytes(&sections.features), rows, columns),
        targets,
        name: header.name,
        simulated: header.simulated,
        fingerprint: header.fingerprint,
        task: header.task,
        columns: header.columns,
        order: header.order,
    })
}

/// Reads what a store says about itself.
///
/// # Errors
/// As [`open`].
pub fn inspect(path: &Path) -> Result<Header> {
    Ok(open_map(path)?.0)
}

/// Opens a store and compares all of its data with their checksums; returns how many bytes were compared.
///
/// # Errors
/// As [`open`], and the first byte range that differs from what was written.
pub fn verify(path: &Path) -> Result<u64> {
    let (header, map) = open_map(path)?;
    let data = &map[PAGE as usize..sections_of(path, &header)?.targets.end as usize];
    let blocks: Vec<&[u8]> = data.chunks(BLOCK_BYTES as usize).collect();
    let damaged = if blocks.len() == header.checksums.len() {
        let intact = |(block, checksum): (&&[u8], &String)| hex(&Sha256::digest(block)) == *checksum;
        blocks.par_iter().zip(&header.checksums).position_first(|pair| !intact(pair))
    } else {
        Some(0)
    };
    match damaged {
        None => Ok(data.len() as u64),
        Some(block) => {
            let start = PAGE + block as u64 * BLOCK_BYTES;
            let end = (start + BLOCK_BYTES).min(PAGE + data.len() as u64);
            let finding = format!("the data between bytes {start} and {end} are not those that were written");
            Err(DataError::new(path, finding, AGAIN).into())
        }
    }
}

/// The columns `wanted` of a store, matched by name, and its targets.
pub(in crate::data) fn read_features(path: &Path, wanted: &[String]) -> Result<(Panels, Option<RawTargets>)> {
    let table = open(path)?;
    let values = table.targets.values()[..table.rows()].to_vec();
    let targets = match table.task.clone() {
        Task::Classes(names) => {
            let codes = values.iter().map(|&value| value as u32).collect::<Vec<_>>();
            if codes.iter().any(|&code| code as usize >= names.len()) {
                let finding = "a target is none of the classes: the data are damaged";
                return Err(DataError::new(path, finding, AGAIN).into());
            }
            RawTargets::Names { names, codes }
        }
        Task::Regression => RawTargets::Numbers { values, integers: None },
    };
    if table.columns == wanted {
        return Ok((table.features, Some(targets)));
    }
    let places = wanted
        .iter()
        .map(|name| {
            table.columns.iter().position(|column| column == name).ok_or_else(|| {
                let finding = format!("the store has no column named {name:?}, which the model was trained on");
                Error::from(DataError::new(path, finding, "give data with the columns of the training data"))
            })
        })
        .collect::<Result<Vec<usize>>>()?;
    let mut values = Vec::with_capacity(panel_len(table.rows(), wanted.len()));
    for panel in 0..table.rows().div_ceil(PANEL_ROWS) {
        let panel = table.features.panel(panel);
        places.iter().for_each(|&c| values.extend_from_slice(&panel[c * PANEL_ROWS..(c + 1) * PANEL_ROWS]));
    }
    Ok((Panels::from_values(values, table.rows(), wanted.len()), Some(targets)))
}

const AGAIN: &str = "import or generate the data again, or copy the store again from where it is intact";

fn sections_of(path: &Path, header: &Header) -> Result<Sections> {
    Sections::of(header.rows, header.columns.len()).ok_or_else(|| {
        let finding = format!("{} rows x {} columns are more than a file holds", header.rows, header.columns.len());
        DataError::new(path, finding, AGAIN).into()
    })
}

/// Maps a store after checking everything but its data.
fn open_map(path: &Path) -> Result<(Header, Mmap)> {
    let refuse = |finding: String, remedy: &str| Error::from(DataError::new(path, finding, remedy));
    let (file, length) = open_file(path)?;
    if length == 0 {
        return Err(refuse("the file is empty".into(), AGAIN));
    }
    // SAFETY: the map is read-only. As with every mapped file, it must not be changed or cut while it is in use;
    // stores are only ever replaced by renaming, which leaves the mapped file as it is.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))?;
    let magic = &map[..map.len().min(MAGIC.len())];
    if magic != MAGIC {
        let finding = format!("not a store: it begins with 0x{} and not with the store's magic number", hex(magic));
        return Err(refuse(finding, "make one of it with: parsimony data import"));
    }
    if map.len() < PAGE as usize {
        return Err(refuse(format!("the store is truncated: {length} bytes, less than its first page"), AGAIN));
    }
    let page: &[u8; PREAMBLE] = map.first_chunk().unwrap_or(&[0; PREAMBLE]);
    if Sha256::digest(&page[..CHECKED])[..] != page[CHECKED..] {
        return Err(refuse("the first page of the store is damaged (its checksum differs)".into(), AGAIN));
    }
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| page[at + i]));
    let version = number(16) as u32;
    if version != VERSION {
        let finding = format!("a store of version {version}, and this program reads version {VERSION}");
        return Err(refuse(finding, "import the data again, or use the program that wrote it"));
    }
    let (header_start, header_length, expected) = (number(24), number(32), number(40));
    if length != expected {
        let what = if length < expected { "truncated" } else { "longer than it was written" };
        return Err(refuse(format!("the store is {what}: {length} bytes, where its header says {expected}"), AGAIN));
    }
    let text = usize::try_from(header_start)
        .ok()
        .zip(header_start.checked_add(header_length).and_then(|end| usize::try_from(end).ok()))
        .and_then(|(start, end)| map.get(start..end));
    let Some(text) = text.filter(|text| Sha256::digest(text)[..] == page[48..CHECKED]) else {
        return Err(refuse("the header of the store is damaged (its checksum differs)".into(), AGAIN));
    };
    let header: Header = serde_json::from_slice(text)
        .map_err(|error| refuse(format!("the header of the store cannot be understood ({error})"), AGAIN))?;
    let sections = sections_of(path, &header)?;
    if header.rows == 0 || header.columns.is_empty() || sections.targets.end > header_start {
        return Err(refuse("the header of the store contradicts itself: its data do not fit in".into(), AGAIN));
    }
    Ok((header, map))
}
