//! A matrix with room to spare: what models keep of a block of examples, a unit a row and an example a column.

use crate::device::array::{View, ViewMut};
use crate::device::{Array, Device};
use std::ops::Range;

/// A matrix with a row for each unit and room for the examples of a block.
#[derive(Debug)]
pub(super) struct Sheet {
    pub array: Array,
    units: usize,
    stride: usize,
}

impl Sheet {
    pub fn new(device: &Device, units: usize, rows: usize) -> Self {
        // A little more than a power of two keeps rows from meeting in the same cache sets.
        let stride = rows.next_multiple_of(16) + 16;
        Self { array: device.zeros(units * stride), units, stride }
    }

    pub fn view(&self, columns: usize) -> View<'_> {
        self.part(self.units, columns)
    }

    pub fn view_mut(&mut self, columns: usize) -> ViewMut<'_> {
        self.part_mut(self.units, columns)
    }

    pub fn part(&self, units: usize, columns: usize) -> View<'_> {
        self.array.strided(0, units, columns, self.stride)
    }

    /// The rows of some units.
    pub fn units(&self, units: Range<usize>, columns: usize) -> View<'_> {
        self.array.strided(units.start * self.stride, units.len(), columns, self.stride)
    }

    /// The row of one unit.
    pub fn unit_mut(&mut self, unit: usize, columns: usize) -> ViewMut<'_> {
        self.array.strided_mut(unit * self.stride, 1, columns, self.stride)
    }

    pub fn part_mut(&mut self, units: usize, columns: usize) -> ViewMut<'_> {
        self.array.strided_mut(0, units, columns, self.stride)
    }
}
