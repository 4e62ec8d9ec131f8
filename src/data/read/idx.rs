//! IDX, the format of MNIST: big-endian magic number (two zeros, element type, number of dimensions), the sizes of the
//! dimensions, then the elements (LeCun, Cortes, Burges: "The MNIST database of handwritten digits").
//!
//! Images and labels lie in two files side by side; either of them may be given. Pixels stay as they are, 0 to 255.

use super::labels::RawTargets;
use super::sink::{Assembler, check_memory};
use super::source::{Source, hex};
use super::{DENSE_LIMIT, Format, Outcome};
use crate::error::{DataError, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// One IDX file: its dimensions and its elements.
struct Array {
    path: PathBuf,
    dimensions: Vec<usize>,
    elements: Elements,
    fingerprint: String,
}

/// Elements as bytes, big-endian, with their type.
struct Elements {
    kind: u8,
    size: usize,
    bytes: Vec<u8>,
}

/// Reads images with their labels.
pub(super) fn read(path: &Path, wanted: Option<&[String]>, rows: &mut Assembler<'_>) -> Result<Outcome> {
    let given = read_array(path)?;
    let (images, labels) = if given.dimensions.len() == 1 {
        let images = read_array(&sibling(path, "labels", "images", "idx1", "idx3")?)?;
        (images, Some(given))
    } else {
        match sibling(path, "images", "labels", "idx3", "idx1") {
            Ok(labels) => (given, Some(read_array(&labels)?)),
            Err(_) if wanted.is_some() => (given, None),
            Err(error) => return Err(error),
        }
    };
    let count = images.dimensions[0];
    if images.dimensions.len() < 2 {
        let finding = "one dimension, where images have two or three";
        return Err(
            DataError::new(&images.path, finding, "give the file of the images beside that of the labels").into()
        );
    }
    let width = images.dimensions[1..].iter().try_fold(1usize, |width, &n| width.checked_mul(n));
    let Some(width) = width else {
        let finding = format!("the dimensions {:?} are larger than any image", images.dimensions);
        return Err(DataError::new(&images.path, finding, "fetch or copy the file again").into());
    };
    if count == 0 || width == 0 {
        return Err(DataError::new(&images.path, "no images in the file", "give a file with at least one image").into());
    }
    let columns = columns(&images, width, wanted)?;
    let mut fingerprints = vec![images.fingerprint.clone()];
    let targets = match labels {
        None => None,
        Some(labels) => {
            if labels.dimensions != [count] {
                return Err(DataError::new(
                    &labels.path,
                    format!("{:?} labels for the {count} images of {}", labels.dimensions, images.path.display()),
                    "keep the two files that belong together side by side",
                )
                .into());
            }
            let mut targets = RawTargets::numbers();
            for row in 0..count {
                let value = labels.element(row)?;
                targets.push_number(value, value as f32);
            }
            fingerprints.push(labels.fingerprint);
            Some(targets)
        }
    };
    check_memory(&images.path, None, width, DENSE_LIMIT, "give smaller images")?;
    rows.begin(&columns)?;
    let mut row = vec![0.0; width];
    for image in 0..count {
        for (pixel, slot) in row.iter_mut().enumerate() {
            *slot = images.element(image * width + pixel)? as f32;
        }
        rows.push_rows(&row)?;
    }
    // Of two files the fingerprint is the digest of both digests.
    let fingerprint = match fingerprints.as_slice() {
        [one] => one.clone(),
        both => hex(&Sha256::digest(both.concat())),
    };
    let target_name = targets.as_ref().map(|_| "of the labels".to_owned());
    Ok(Outcome { format: Format::Idx, columns, target_name, targets, rows: count, dropped: 0, fingerprint })
}

fn columns(images: &Array, width: usize, wanted: Option<&[String]>) -> Result<Vec<String>> {
    match wanted {
        None => Ok((0..width).map(|pixel| format!("pixel_{pixel}")).collect()),
        Some(wanted) if wanted.len() == width => Ok(wanted.to_vec()),
        Some(wanted) => Err(DataError::new(
            &images.path,
            format!("images of {width} pixels, where the model was trained on {} columns", wanted.len()),
            "give images of the same size",
        )
        .into()),
    }
}

impl Array {
    /// Element `index` as a number.
    fn element(&self, index: usize) -> Result<f64> {
        let Elements { kind, size, bytes } = &self.elements;
        let element = &bytes[index * size..(index + 1) * size];
        let value = match (kind, element) {
            (0x08, &[a]) => f64::from(a),
            (0x09, &[a]) => f64::from(a as i8),
            (0x0b, &[a, b]) => f64::from(i16::from_be_bytes([a, b])),
            (0x0c, &[a, b, c, d]) => f64::from(i32::from_be_bytes([a, b, c, d])),
            (0x0d, &[a, b, c, d]) => f64::from(f32::from_be_bytes([a, b, c, d])),
            (_, element) => f64::from_be_bytes(element.try_into().unwrap_or([0; 8])),
        };
        if (value as f32).is_finite() {
            return Ok(value);
        }
        let finding = format!("element {} of the file is {value}, which is not a finite 32-bit number", index + 1);
        Err(DataError::new(&self.path, finding, "correct the file").into())
    }
}

/// The size of an element of each type.
fn element_size(kind: u8) -> Option<usize> {
    match kind {
        0x08 | 0x09 => Some(1),
        0x0b => Some(2),
        0x0c | 0x0d => Some(4),
        0x0e => Some(8),
        _ => None,
    }
}

fn read_array(path: &Path) -> Result<Array> {
    let source = Source::open(path)?;
    let refuse = |finding: String| DataError::new(path, finding, "fetch or copy the file again, or force its format");
    let head = source.head();
    let (kind, rank) = match head {
        [0, 0, kind, rank @ 1..=8, ..] => (*kind, usize::from(*rank)),
        _ => {
            let magic = hex(&head[..head.len().min(4)]);
            return Err(refuse(format!("the magic number 0x{magic} at byte 0 is not that of an IDX file")).into());
        }
    };
    let Some(size) = element_size(kind) else {
        return Err(refuse(format!("the element type 0x{kind:02x} at byte 2 is none that IDX files have")).into());
    };
    let start = 4 + 4 * rank;
    if head.len() < start {
        return Err(refuse(format!("the file ends at byte {}, inside its header", head.len())).into());
    }
    let dimensions: Vec<usize> =
        head[4..start].chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]) as usize).collect();
    let expected = dimensions.iter().try_fold(size, |bytes, &dimension| bytes.checked_mul(dimension));
    let Some(total) = expected.and_then(|bytes| bytes.checked_add(start)) else {
        return Err(refuse(format!("the dimensions {dimensions:?} are larger than any file")).into());
    };
    // Before any memory is asked for; what a compressed file holds shows only as it is read.
    if !source.is_gzip() && source.size() != total as u64 {
        let found = source.size();
        return Err(refuse(format!("{found} bytes, where the dimensions {dimensions:?} need {total}")).into());
    }
    let mut source = source;
    let mut bytes = source.read_rest(total.saturating_add(1))?;
    if bytes.len() != total {
        let found = if bytes.len() > total { format!("more than {total}") } else { bytes.len().to_string() };
        return Err(refuse(format!("{found} bytes, where the dimensions {dimensions:?} need {total}")).into());
    }
    bytes.drain(..start);
    let fingerprint = source.finish()?;
    Ok(Array { path: path.to_owned(), dimensions, elements: Elements { kind, size, bytes }, fingerprint })
}

/// The file that belongs to `path`: its name with `from` replaced by `to` and so on, compressed or not.
fn sibling(path: &Path, from: &str, to: &str, from_rank: &str, to_rank: &str) -> Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let other = name.replace(from, to).replace(from_rank, to_rank);
    let plain = other.strip_suffix(".gz").unwrap_or(&other);
    let candidates = [other.clone(), plain.to_owned(), format!("{plain}.gz")];
    if other != name {
        for candidate in &candidates {
            let candidate = path.with_file_name(candidate);
            if candidate.is_file() {
                return Ok(candidate);
            }
        }
    }
    Err(DataError::new(
        path,
        format!("the file of the {to} is not beside it"),
        if other == name {
            format!("name the two files as MNIST does: ...-{from}-{from_rank}-ubyte and ...-{to}-{to_rank}-ubyte")
        } else {
            format!("put {plain} (or {plain}.gz) into the same folder")
        },
    )
    .into())
}
