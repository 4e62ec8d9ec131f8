//! From rows in file order to panels: what readers write to.

use crate::data::interrupt;
use crate::device::{PANEL_ROWS, Panels};
use crate::error::{DataError, Result};
use std::path::Path;

/// Takes panels in row order; all but the last hold [`PANEL_ROWS`] rows.
pub(in crate::data) trait PanelSink {
    /// Called once, before any panel, with the names of the features.
    fn begin(&mut self, columns: &[String]) -> Result<()>;
    /// Takes `columns * PANEL_ROWS` numbers of which the first `rows` of each column count; the rest are zero.
    fn push(&mut self, panel: &[f32], rows: usize) -> Result<()>;
}

/// Refuses a table so wide that its panels would take more than `limit` bytes: those of `rows` rows, and beside them
/// the one being assembled. A panel holds [`PANEL_ROWS`] rows however few there are, so it is the width that counts; a
/// reader that does not know the number of rows asks for one row. Comes before [`Assembler::begin`], which allocates.
pub(super) fn check_memory(path: &Path, rows: Option<usize>, width: usize, limit: u64, remedy: &str) -> Result<()> {
    let padded = (rows.unwrap_or(1) as u64).checked_next_multiple_of(PANEL_ROWS as u64);
    let bytes = padded
        .and_then(|rows| rows.checked_add(PANEL_ROWS as u64)?.checked_mul(width as u64)?.checked_mul(4))
        .unwrap_or(u64::MAX);
    if bytes <= limit {
        return Ok(());
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    let what = rows.map_or("rows".to_owned(), |rows| format!("{rows} rows"));
    let finding = format!(
        "{what} x {width} features would take {:.1} GiB once dense, more than the limit of {:.1} GiB (tables are kept \
         in panels of {PANEL_ROWS} rows)",
        gib(bytes),
        gib(limit)
    );
    Err(DataError::new(path, finding, remedy).into())
}

/// Keeps the panels in memory.
#[derive(Default)]
pub(super) struct MemorySink {
    values: Vec<f32>,
    rows: usize,
}

impl MemorySink {
    pub(super) fn into_panels(self, columns: usize) -> Panels {
        Panels::from_values(self.values, self.rows, columns)
    }
}

impl PanelSink for MemorySink {
    fn begin(&mut self, _columns: &[String]) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, panel: &[f32], rows: usize) -> Result<()> {
        self.values.extend_from_slice(panel);
        self.rows += rows;
        Ok(())
    }
}

/// Transposes rows into panels and hands each full panel on.
pub(in crate::data) struct Assembler<'a> {
    sink: &'a mut dyn PanelSink,
    panel: Vec<f32>,
    width: usize,
    filled: usize,
}

impl<'a> Assembler<'a> {
    pub(in crate::data) fn new(sink: &'a mut dyn PanelSink) -> Self {
        Self { sink, panel: Vec::new(), width: 0, filled: 0 }
    }

    /// Fixes the columns; comes before the first row.
    pub(in crate::data) fn begin(&mut self, columns: &[String]) -> Result<()> {
        self.width = columns.len();
        self.panel = vec![0.0; self.width * PANEL_ROWS];
        self.sink.begin(columns)
    }

    /// Takes whole rows, one after another.
    pub(in crate::data) fn push_rows(&mut self, rows: &[f32]) -> Result<()> {
        debug_assert_eq!(rows.len() % self.width, 0);
        for row in rows.chunks_exact(self.width) {
            for (slot, &value) in self.panel[self.filled..].iter_mut().step_by(PANEL_ROWS).zip(row) {
                *slot = value;
            }
            self.filled += 1;
            if self.filled == PANEL_ROWS {
                interrupt::check()?;
                self.sink.push(&self.panel, PANEL_ROWS)?;
                self.filled = 0;
            }
        }
        Ok(())
    }

    /// Hands on the last, partly filled panel.
    pub(in crate::data) fn finish(self) -> Result<()> {
        let Self { sink, mut panel, filled, .. } = self;
        if filled > 0 {
            for column in panel.chunks_exact_mut(PANEL_ROWS) {
                column[filled..].fill(0.0);
            }
            sink.push(&panel, filled)?;
        }
        Ok(())
    }
}
