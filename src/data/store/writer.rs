//! Writing a store panel by panel, in bounded memory; it appears under its name only when it is complete.

use super::{BLOCK_BYTES, CHECKED, Header, MAGIC, PAGE, PREAMBLE, Provenance, Sections, VERSION};
use crate::data::read::{PanelSink, hex};
use crate::data::{RowOrder, Task};
use crate::device::PANEL_ROWS;
use crate::device::panels::panel_len;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A store under way. Dropped before [`StoreWriter::finish`], it leaves nothing behind.
pub struct StoreWriter {
    path: PathBuf,
    file: NamedTempFile,
    columns: Vec<String>,
    rows: usize,
    /// Data that are not written yet: less than a block.
    pending: Vec<u8>,
    checksums: Vec<String>,
}

/// What a finished store says about itself besides its data.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreLabel {
    /// As [`crate::data::Table::name`].
    pub name: String,
    /// As [`crate::data::Table::simulated`].
    pub simulated: bool,
    /// As [`crate::data::Table::fingerprint`].
    pub fingerprint: String,
    /// What the targets are.
    pub task: Task,
    /// Whether the rows stand as in the source.
    pub order: RowOrder,
    /// Where the data came from; the program's name is filled in here.
    pub provenance: Provenance,
}

/// A file of a name of its own in the folder of `path`, to be persisted as `path` when it is complete.
pub(in crate::data) fn file_beside(path: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".parsimony-").suffix(".partial");
    #[cfg(unix)]
    {
        // As any other new file: what the user's mask allows.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder_of(path)).map_err(Error::io(path, "create"))
}

/// The folder in which `path` is to stand.
pub(in crate::data) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl StoreWriter {
    /// Begins a store that is to stand at `path`.
    ///
    /// # Errors
    /// If no file can be made in that folder.
    pub fn create(path: &Path, columns: &[String]) -> Result<Self> {
        let mut file = file_beside(path)?;
        file.write_all(&[0; PAGE as usize]).map_err(Error::io(path, "write"))?;
        let pending = Vec::with_capacity(BLOCK_BYTES as usize);
        Ok(Self { path: path.to_owned(), file, columns: columns.to_vec(), rows: 0, pending, checksums: Vec::new() })
    }

    /// Rows written so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends a panel: `columns * PANEL_ROWS` numbers, column after column, of which the first `rows` of each column
    /// count. Only the last panel may hold fewer than [`PANEL_ROWS`] rows; what follows them must be zero.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// If the panel has another size, or follows one that was not full.
    pub fn push_panel(&mut self, panel: &[f32], rows: usize) -> Result<()> {
        assert_eq!(panel.len(), self.columns.len() * PANEL_ROWS, "numbers in a panel");
        assert!(rows <= PANEL_ROWS && self.rows.is_multiple_of(PANEL_ROWS), "only the last panel may be short");
        self.rows += rows;
        self.append(panel)
    }

    /// Writes the targets, one per row, and the header, and gives the store its name. Returns its size in bytes.
    ///
    /// # Errors
    /// If the file cannot be written or renamed.
    ///
    /// # Panics
    /// If there is not one target per row.
    pub fn finish(self, targets: &[f32], label: StoreLabel) -> Result<u64> {
        self.finish_in_parts(std::iter::once(Ok(targets)), label)
    }

    /// As [`StoreWriter::finish`], with targets that come in parts, for more rows than memory holds targets of.
    pub(in crate::data) fn finish_in_parts<T: AsRef<[f32]>>(
        mut self,
        targets: impl Iterator<Item = Result<T>>,
        label: StoreLabel,
    ) -> Result<u64> {
        let too_large = || Error::Numeric(format!("{} rows are more than a store holds", self.rows));
        let sections = Sections::of(self.rows, self.columns.len()).ok_or_else(too_large)?;
        self.append_zeros((sections.targets.start - sections.features.end) as usize)?;
        let mut count = 0;
        for part in targets {
            let part = part?;
            count += part.as_ref().len();
            self.append(part.as_ref())?;
        }
        assert_eq!(count, self.rows, "targets of the rows");
        self.append_zeros(4 * (panel_len(count, 1) - count))?;
        self.flush()?;

        let program = concat!("parsimony ", env!("CARGO_PKG_VERSION")).to_owned();
        let header = Header {
            name: label.name,
            simulated: label.simulated,
            fingerprint: label.fingerprint,
            rows: self.rows,
            columns: self.columns,
            task: label.task,
            order: label.order,
            provenance: Provenance { program, ..label.provenance },
            checksums: self.checksums,
        };
        let text = serde_json::to_vec(&header).map_err(|error| Error::Numeric(error.to_string()))?;
        let start = sections.targets.end;
        let length = start + text.len() as u64;
        let mut page = [0u8; PREAMBLE];
        page[..16].copy_from_slice(MAGIC);
        page[16..20].copy_from_slice(&VERSION.to_le_bytes());
        page[24..32].copy_from_slice(&start.to_le_bytes());
        page[32..40].copy_from_slice(&(text.len() as u64).to_le_bytes());
        page[40..48].copy_from_slice(&length.to_le_bytes());
        page[48..CHECKED].copy_from_slice(&Sha256::digest(&text));
        let checksum = Sha256::digest(&page[..CHECKED]);
        page[CHECKED..].copy_from_slice(&checksum);

        let mut file = self.file;
        let write = |file: &mut NamedTempFile| {
            file.write_all(&text)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&page)
        };
        write(&mut file).map_err(Error::io(&self.path, "write"))?;
        // Not flushed to the disk: after a power failure the checks at opening refuse it, and it can be made again.
        file.persist(&self.path).map_err(|error| Error::io(&self.path, "create")(error.error))?;
        Ok(length)
    }

    fn append(&mut self, numbers: &[f32]) -> Result<()> {
        // Chunks that fit what the block still takes, which is a multiple of 4 as everything here is.
        let mut rest = numbers;
        while !rest.is_empty() {
            let room = (BLOCK_BYTES as usize - self.pending.len()) / 4;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.pending.extend(now.iter().flat_map(|number| number.to_le_bytes()));
            rest = later;
            if self.pending.len() == BLOCK_BYTES as usize {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn append_zeros(&mut self, bytes: usize) -> Result<()> {
        debug_assert_eq!(bytes % 4, 0);
        self.append(&vec![0.0; bytes / 4])
    }

    /// Writes and hashes what is pending.
    fn flush(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.checksums.push(hex(&Sha256::digest(&self.pending)));
            self.file.write_all(&self.pending).map_err(Error::io(&self.path, "write"))?;
            self.pending.clear();
        }
        Ok(())
    }
}

impl PanelSink for StoreWriter {
    fn begin(&mut self, _columns: &[String]) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, panel: &[f32], rows: usize) -> Result<()> {
        self.push_panel(panel, rows)
    }
}
