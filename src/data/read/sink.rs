//! From rows in file order to panels: what readers write to.

use crate::device::{PANEL_ROWS, Panels};
use crate::error::Result;

/// Takes panels in row order; all but the last hold [`PANEL_ROWS`] rows.
pub(in crate::data) trait PanelSink {
    /// Called once, before any panel, with the names of the features.
    fn begin(&mut self, columns: &[String]) -> Result<()>;
    /// Takes `columns * PANEL_ROWS` numbers of which the first `rows` of each column count; the rest are zero.
    fn push(&mut self, panel: &[f32], rows: usize) -> Result<()>;
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
