//! A GPU as a device of arrays: every operation is a launch of a kernel of `kernels/`, products are a library's.
//!
//! The host waits only where a number comes back to it. Sums are formed in two stages whose shape follows from sizes alone, so
//! that the same device gives the same bits every time. Eigenvalues and `Q` of `Q R` are found on the host, as on the CPU.
//! No operation here can answer an error, so the first fault is kept and [`Backend::for_blocks`] reports it (see `Core`).

use super::machine::{Argument, Core, DeviceMatrix, Factor, Machine, Memory, Numbers, THREADS};
use super::regression::Columns;
use crate::device::array::{Array, Shape, Storage, View, ViewMut};
use crate::device::cpu::design::Transform;
use crate::device::cpu::linalg;
use crate::device::{
    Activation, AdamStep, Backend, BlockBody, Factors, Job, Loss, PANEL_ROWS, Panels, Regression, Selection, Table,
    Tokens,
};
use crate::error::Result;
use ndarray::Array2;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// What was brought to the device, by where it lies on the host; what is kept alive beside it holds that place.
type Brought<T, M = Memory> = Mutex<HashMap<usize, (T, Arc<M>)>>;

/// A GPU.
#[derive(Debug)]
pub struct Cuda {
    pub(super) core: Arc<Core>,
    /// Parts of sums, the sums before them.
    parts: Mutex<Option<Memory>>,
    /// Rows of data.
    panels: Brought<Panels>,
    /// Shifts and factors of columns.
    columns: Brought<Arc<[f32]>>,
    /// Tables of the columns of designs.
    pub(super) designs: Brought<Arc<Transform>, Columns>,
}

/// Numbers before the parts of sums: the sums.
const SUMS: usize = 8;
/// Bytes that a block of a job takes at most.
pub(super) const BLOCK_BYTES: usize = 1 << 30;
/// Bytes of panels that are copied at once.
const PIECE_BYTES: usize = 8 << 20;

/// Builds the arguments of a launch.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &[$(Argument::from($argument)),*] };
}

pub(super) use arguments;

fn kind_of_activation(h: Activation) -> i32 {
    match h {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::Tanh => 2,
        Activation::Sigmoid => 3,
        Activation::Gelu => 4,
    }
}

fn kind_of_loss(loss: Loss) -> i32 {
    match loss {
        Loss::Logistic => 0,
        Loss::Softmax => 1,
        Loss::Squared => 2,
        Loss::Hinge => 3,
        Loss::UnitHinge => 4,
    }
}

pub(super) fn numbers(array: &Array) -> &Numbers {
    match &array.storage {
        Storage::Cuda(numbers) => numbers,
        Storage::Cpu(_) => panic!("an array of the CPU on a GPU"),
    }
}

/// Address of an array's first element.
pub(super) fn address(array: &Array) -> u64 {
    numbers(array).memory().address()
}

fn matrix_of(array: &Array, shape: Shape) -> DeviceMatrix {
    let Shape { start, rows, columns, stride } = shape;
    let values = address(array) + (start * size_of::<f32>()) as u64;
    DeviceMatrix { values, rows: rows as i64, columns: columns as i64, stride: stride as i64 }
}

pub(super) fn matrix(view: View<'_>) -> DeviceMatrix {
    matrix_of(view.array, view.shape)
}

pub(super) fn matrix_mut(view: &ViewMut<'_>) -> DeviceMatrix {
    matrix_of(view.array, view.shape)
}

pub(super) fn factor(view: View<'_>) -> Factor {
    Factor { matrix: matrix(view), transposed: view.transposed }
}

pub(super) fn is_empty(m: DeviceMatrix) -> bool {
    m.rows == 0 || m.columns == 0
}

/// Blocks for a flat array.
pub(super) fn flat(count: usize) -> [u32; 2] {
    [count.div_ceil(4 * THREADS as usize).clamp(1, 1 << 16) as u32, 1]
}

/// Blocks for the elements of a matrix.
fn over(m: DeviceMatrix) -> [u32; 2] {
    [blocks_of_columns(m), m.rows.clamp(1, 1 << 15) as u32]
}

/// Blocks for the columns of a matrix, a thread each.
pub(super) fn blocks_of_columns(m: DeviceMatrix) -> u32 {
    (m.columns as usize).div_ceil(THREADS as usize).clamp(1, 1 << 16) as u32
}

/// Blocks whose parts make a sum over a flat array, and over a matrix.
fn flat_parts(count: usize) -> [u32; 2] {
    [count.div_ceil(16 * THREADS as usize).clamp(1, 1024) as u32, 1]
}

fn matrix_parts(m: DeviceMatrix) -> [u32; 2] {
    [(m.columns as usize).div_ceil(4 * THREADS as usize).clamp(1, 256) as u32, m.rows.clamp(1, 16) as u32]
}

impl Cuda {
    /// A backend on a machine.
    #[must_use]
    pub fn on(machine: impl Machine + 'static) -> Self {
        let core = Arc::new(Core::new(Box::new(machine)));
        Self {
            core,
            parts: Mutex::default(),
            panels: Mutex::default(),
            columns: Mutex::default(),
            designs: Mutex::default(),
        }
    }

    /// `out = a b`, or with `keep` `out += a b`, by a library, if one is there that takes such factors; answers whether.
    pub(super) fn library_product(
        &self,
        out: DeviceMatrix,
        keep: bool,
        a: Factor,
        b: Factor,
        factors: Factors,
    ) -> bool {
        let multiply = |a, b| self.core.attempt(|machine| machine.product(out, keep, a, b, factors)) == Some(true);
        if is_empty(a.matrix) {
            return false;
        }
        match factors {
            Factors::Single => multiply(a, b),
            Factors::Half => {
                let takes_half = self.core.attempt(|machine| Ok(machine.multiplies_half())) == Some(true);
                takes_half && {
                    let ((_a, a), (_b, b)) = (self.packed(a), self.packed(b));
                    multiply(a, b)
                }
            }
        }
    }

    /// A factor's numbers as bf16 in memory of their own, rows at multiples of 16 bytes.
    fn packed(&self, of: Factor) -> (Memory, Factor) {
        let DeviceMatrix { rows, columns, .. } = of.matrix;
        let stride = (columns as usize).next_multiple_of(8);
        let memory = Memory::new(&self.core, rows as usize * stride * size_of::<u16>());
        self.on_elements("pack_half", of.matrix, arguments![memory.address(), stride, of.matrix]);
        let matrix = DeviceMatrix { values: memory.address(), rows, columns, stride: stride as i64 };
        (memory, Factor { matrix, ..of })
    }

    fn on_flat(&self, kernel: &'static str, count: usize, arguments: &[Argument]) {
        if count > 0 {
            self.core.launch(kernel, flat(count), arguments);
        }
    }

    /// Launches over the elements of a matrix.
    pub(super) fn on_elements(&self, kernel: &'static str, m: DeviceMatrix, arguments: &[Argument]) {
        if !is_empty(m) {
            self.core.launch(kernel, over(m), arguments);
        }
    }

    /// Launches over the columns of a matrix, a thread each.
    fn on_columns(&self, kernel: &'static str, m: DeviceMatrix, arguments: &[Argument]) {
        if !is_empty(m) {
            self.core.launch(kernel, [blocks_of_columns(m), 1], arguments);
        }
    }

    /// Calls `with` with memory for parts of sums, the sums before them.
    pub(super) fn with_parts<T>(&self, parts: usize, with: impl FnOnce(&Memory, u64) -> T) -> T {
        let mut kept = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = (SUMS + parts) * size_of::<f64>();
        let memory = match kept.take() {
            Some(memory) if memory.bytes() >= bytes => memory,
            _ => Memory::new(&self.core, bytes.next_power_of_two()),
        };
        let result = with(&memory, memory.address() + (SUMS * size_of::<f64>()) as u64);
        *kept = Some(memory);
        result
    }

    /// Runs a kernel whose last argument are the parts of `N` sums, and adds them up; NaN after a fault.
    fn reduce<const N: usize>(
        &self,
        kernel: &'static str,
        finish: &'static str,
        grid: [u32; 2],
        arguments: &[Argument],
    ) -> [f64; N] {
        let count = grid[0] as usize * grid[1] as usize;
        self.with_parts(N * count, |memory, parts| {
            let mut all = arguments.to_vec();
            all.push(parts.into());
            self.core.launch(kernel, grid, &all);
            self.core.launch(finish, [N as u32, 1], arguments![parts, count, memory.address()]);
            let mut sums = [f64::NAN; N];
            memory.read(0, &mut sums);
            sums
        })
    }

    fn sum_over<const N: usize>(&self, kernel: &'static str, grid: [u32; 2], arguments: &[Argument]) -> [f64; N] {
        self.reduce(kernel, "add_parts", grid, arguments)
    }

    pub(super) fn new_array(&self, len: usize) -> Array {
        Array { storage: Storage::Cuda(Numbers::new(&self.core, len)) }
    }

    /// The numbers of a table on the device.
    pub(super) fn panels(&self, panels: &Panels) -> Arc<Memory> {
        let mut kept = self.panels.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || (panels.clone(), Arc::new(self.copy_of(panels)));
        Arc::clone(&kept.entry(panels.values().as_ptr() as usize).or_insert_with(new).1)
    }

    /// Panels copied piece by piece: of a mapped file no more stays in the host's memory than may.
    fn copy_of(&self, panels: &Panels) -> Memory {
        let memory = Memory::new(&self.core, size_of_val(panels.values()));
        let size = (panels.columns() * PANEL_ROWS).max(1);
        let at_once = (PIECE_BYTES / (size * size_of::<f32>())).max(1);
        let mut pieces = panels.pieces();
        for (i, numbers) in panels.values().chunks(at_once * size).enumerate() {
            let first = i * at_once;
            (first..first + numbers.len() / size).for_each(|panel| pieces.reach(panel));
            memory.write(first * size, numbers);
        }
        memory
    }

    fn of_columns(&self, values: &Arc<[f32]>) -> Arc<Memory> {
        let mut kept = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || (Arc::clone(values), Arc::new(Memory::with(&self.core, &values[..])));
        Arc::clone(&kept.entry(values.as_ptr() as usize).or_insert_with(new).1)
    }

    /// Rows of a table by one of the kernels that load them.
    pub(super) fn load_by(&self, kernel: &'static str, table: &Table, rows: Selection<'_>, out: DeviceMatrix) {
        let panels = self.panels(&table.panels);
        let (shift, factor) = (self.of_columns(&table.shift), self.of_columns(&table.factor));
        let (first, list) = match rows {
            Selection::Range(start, _) => (start, None),
            Selection::List(list) => (0, Some(Memory::with(&self.core, list))),
        };
        let first = table.rows.start + first;
        let list = list.as_ref().map_or(0, Memory::address);
        let (columns, shift, factor) = (table.columns(), shift.address(), factor.address());
        self.on_elements(kernel, out, arguments![panels.address(), columns, first, list, shift, factor, out]);
    }

    fn to_f64(&self, a: View<'_>) -> Array2<f64> {
        let values = self.download(a);
        Array2::from_shape_fn((a.shape.rows, a.shape.columns), |(i, j)| f64::from(values[i * a.shape.columns + j]))
    }

    fn array_of(&self, values: impl Iterator<Item = f32>) -> Array {
        let values: Vec<f32> = values.collect();
        let mut array = self.new_array(values.len());
        self.upload(array.view_mut(0, 1, values.len()), &values);
        array
    }
}

impl Backend for Cuda {
    fn name(&self) -> String {
        self.core.name()
    }

    fn tokens(&self) -> Option<&dyn Tokens> {
        Some(self)
    }

    fn regression(&self) -> &dyn Regression {
        self
    }

    fn zeros(&self, len: usize) -> Array {
        let mut array = self.new_array(len);
        self.fill(&mut array, 0.0);
        array
    }

    fn upload(&self, to: ViewMut<'_>, values: &[f32]) {
        let Shape { start, rows, columns, stride } = to.shape;
        assert_eq!(values.len(), rows * columns, "numbers for a {rows} x {columns} view");
        if stride == columns || rows <= 1 {
            numbers(to.array).memory().write(start, values);
        } else {
            let mut packed = self.new_array(values.len());
            self.upload(packed.view_mut(0, 1, values.len()), values);
            self.copy(to, packed.view(0, rows, columns));
        }
    }

    fn download(&self, from: View<'_>) -> Vec<f32> {
        let Shape { start, rows, columns, stride } = from.shape;
        let mut values = vec![f32::NAN; rows * columns];
        if stride == columns || rows <= 1 {
            numbers(from.array).memory().read(start, &mut values);
            return values;
        }
        let mut packed = self.new_array(values.len());
        self.copy(packed.view_mut(0, rows, columns), View { transposed: false, ..from });
        numbers(&packed).memory().read(0, &mut values);
        values
    }

    fn copy(&self, to: ViewMut<'_>, from: View<'_>) {
        let (to, from) = (matrix_mut(&to), matrix(from));
        assert_eq!((to.rows, to.columns), (from.rows, from.columns), "shapes of a copy");
        self.on_elements("copy", to, arguments![to, from]);
    }

    fn synchronize(&self) {
        self.core.attempt(|machine| machine.synchronize());
    }

    fn check(&self) -> Result<()> {
        self.core.attempt(|machine| machine.synchronize());
        self.core.check()
    }

    fn peak_bytes(&self) -> Option<u64> {
        Some(self.core.peak())
    }

    fn keep(&self, table: &Table) {
        self.panels(&table.panels);
    }

    fn fill(&self, a: &mut Array, value: f32) {
        self.on_flat("fill", a.len(), arguments![address(a), a.len(), value]);
    }

    fn scale(&self, a: &mut Array, factor: f32) {
        self.on_flat("scale", a.len(), arguments![address(a), a.len(), factor]);
    }

    fn axpby(&self, own: f32, a: &mut Array, factor: f32, b: &Array) {
        assert_eq!(a.len(), b.len(), "arrays of the same length");
        self.on_flat("axpby", a.len(), arguments![own, address(a), factor, address(b), a.len()]);
    }

    fn dot(&self, a: &Array, b: &Array, range: Range<usize>) -> f64 {
        assert!(range.end <= a.len() && range.end <= b.len(), "elements {range:?} of arrays");
        if range.is_empty() {
            return 0.0;
        }
        let (a, b) = (element(a, range.start), element(b, range.start));
        let [sum] = self.sum_over("dot", flat_parts(range.len()), arguments![a, b, range.len()]);
        sum
    }

    fn largest(&self, a: &Array) -> f64 {
        if a.is_empty() {
            return 0.0;
        }
        let [largest] = self.reduce("largest", "largest_part", flat_parts(a.len()), arguments![address(a), a.len()]);
        largest
    }

    fn nonzero(&self, a: &Array) -> usize {
        if a.is_empty() {
            return 0;
        }
        let [count]: [f64; 1] = self.sum_over("nonzero", flat_parts(a.len()), arguments![address(a), a.len()]);
        count as usize
    }

    fn divide(&self, a: &mut Array, b: &Array) {
        assert_eq!(a.len(), b.len(), "arrays of the same length");
        self.on_flat("divide", a.len(), arguments![address(a), address(b), a.len()]);
    }

    fn shifted_power(&self, a: &mut Array, shift: f32, exponent: f32) {
        self.on_flat("shifted_power", a.len(), arguments![address(a), a.len(), shift, exponent]);
    }

    fn adam(
        &self,
        a: &mut Array,
        g: &Array,
        range: Range<usize>,
        m: Option<&mut Array>,
        v: &mut Array,
        place: usize,
        step: AdamStep,
    ) {
        let (start, count, end) = (range.start, range.len(), place + range.len());
        assert!(range.end <= a.len() && range.end <= g.len() && end <= v.len(), "elements of Adam's update");
        assert!(m.as_ref().is_none_or(|m| end <= m.len()), "elements of a first moment");
        let m = m.map_or(0, |m| element(m, place));
        let constants = [
            step.beta1,
            1.0 - step.beta1,
            step.beta2,
            1.0 - step.beta2,
            step.root_factor,
            step.epsilon,
            step.step_size,
            step.keep,
        ];
        let constants = constants.map(|constant| constant as f32);
        self.on_flat(
            "adam",
            count,
            arguments![element(a, start), element(g, start), m, element(v, place), count, constants],
        );
    }

    fn add_range(&self, a: &mut Array, range: Range<usize>, factor: f32, b: &Array) {
        assert!(range.end <= a.len() && range.end <= b.len(), "elements {range:?} of arrays");
        let (a, b) = (element(a, range.start), element(b, range.start));
        self.on_flat("axpby", range.len(), arguments![1.0_f32, a, factor, b, range.len()]);
    }

    fn product(&self, out: ViewMut<'_>, keep: bool, a: View<'_>, b: View<'_>) {
        let ((m, k), (inner, n)) = (a.size(), b.size());
        let out = matrix_mut(&out);
        assert!(
            k == inner && (m as i64, n as i64) == (out.rows, out.columns),
            "a product of {m} x {k} and {inner} x {n}"
        );
        if is_empty(out) {
            return;
        }
        let (a, b) = (factor(a), factor(b));
        if !self.library_product(out, keep, a, b, Factors::Single) {
            // TILE of kernels/matrices.cu.
            let tiles = |n: i64, most: u32| (n as usize).div_ceil(64).clamp(1, most as usize) as u32;
            let grid = [tiles(out.columns, 1 << 16), tiles(out.rows, 1 << 15)];
            let arguments = arguments![out, keep, a.matrix, a.transposed, b.matrix, b.transposed];
            self.core.launch("product", grid, arguments);
        }
    }

    fn row_sums(&self, out: ViewMut<'_>, keep: bool, a: View<'_>) {
        let (out, a) = (matrix_mut(&out), matrix(a));
        assert_eq!(out.columns, a.rows, "room for the sums of rows");
        if a.rows == 0 {
            return;
        }
        let rows = a.rows as usize;
        let grid =
            [(a.columns as usize).div_ceil(32 * THREADS as usize).clamp(1, 256) as u32, a.rows.min(1 << 15) as u32];
        self.with_parts(rows * grid[0] as usize, |_, parts| {
            self.core.launch("row_sums", grid, arguments![a, parts]);
            let arguments = arguments![out.values, keep, parts, rows, grid[0] as usize];
            self.core.launch("add_row_parts", flat(rows), arguments);
        });
    }

    fn squares(&self, out: ViewMut<'_>, a: View<'_>) {
        let out = matrix_mut(&out);
        self.on_elements("squares", out, arguments![out, matrix(a)]);
    }

    fn scale_columns(&self, out: ViewMut<'_>, a: View<'_>, w: View<'_>) {
        let out = matrix_mut(&out);
        self.on_elements("scale_columns", out, arguments![out, matrix(a), matrix(w).values]);
    }

    fn blend(&self, own: f32, a: ViewMut<'_>, factor: f32, b: View<'_>) {
        let a = matrix_mut(&a);
        self.on_elements("blend", a, arguments![own, a, factor, matrix(b)]);
    }

    fn column_dots(&self, out: ViewMut<'_>, keep: bool, a: View<'_>, b: View<'_>) {
        let (out, a) = (matrix_mut(&out), matrix(a));
        if a.columns > 0 {
            self.core.launch("column_dots", [blocks_of_columns(a), 1], arguments![out.values, keep, a, matrix(b)]);
        }
    }

    fn inner(&self, a: View<'_>, b: View<'_>) -> f64 {
        let (a, b) = (matrix(a), matrix(b));
        let [sum] = self.sum_over("inner", matrix_parts(a), arguments![a, b]);
        sum
    }

    fn count_positive(&self, a: View<'_>) -> usize {
        let a = matrix(a);
        let [count]: [f64; 1] = self.sum_over("count_positive", matrix_parts(a), arguments![a]);
        count as usize
    }

    fn activate(&self, h: Activation, a: ViewMut<'_>, bias: View<'_>, slope: Option<ViewMut<'_>>) {
        let a = matrix_mut(&a);
        let slope = slope.map_or(DeviceMatrix::NONE, |slope| matrix_mut(&slope));
        self.on_elements("activate", a, arguments![kind_of_activation(h), a, matrix(bias).values, slope]);
    }

    fn tangent(&self, h: Activation, t: ViewMut<'_>, bias: View<'_>, kept: View<'_>) {
        let t = matrix_mut(&t);
        self.on_elements("tangent", t, arguments![kind_of_activation(h), t, matrix(bias).values, matrix(kept)]);
    }

    fn backpropagate(&self, h: Activation, mut below: ViewMut<'_>, w: View<'_>, d: View<'_>, kept: View<'_>) {
        self.product(below.again(), false, w.t(), d);
        if h != Activation::Identity {
            let below = matrix_mut(&below);
            self.on_elements("multiply_slopes", below, arguments![kind_of_activation(h), below, matrix(kept)]);
        }
    }

    fn loss(&self, loss: Loss, outputs: View<'_>, targets: View<'_>, residual: Option<(ViewMut<'_>, f32)>) -> f64 {
        let (outputs, targets) = (matrix(outputs), matrix(targets));
        assert_eq!(outputs.columns, targets.columns, "examples of outputs and targets");
        let (residual, factor) =
            residual.map_or((DeviceMatrix::NONE, 1.0), |(residual, factor)| (matrix_mut(&residual), factor));
        let [sum] = if loss == Loss::Softmax {
            let grid = [matrix_parts(outputs)[0], 1];
            self.sum_over("softmax_loss", grid, arguments![outputs, targets.values, residual, factor])
        } else {
            let arguments = arguments![kind_of_loss(loss), outputs, targets, residual, factor];
            self.sum_over("single_loss", matrix_parts(outputs), arguments)
        };
        sum
    }

    fn loss_proximal(
        &self,
        loss: Loss,
        center: View<'_>,
        metric: View<'_>,
        targets: View<'_>,
        t: ViewMut<'_>,
    ) -> [f64; 2] {
        let (center, metric, targets, t) = (matrix(center), matrix(metric), matrix(targets), matrix_mut(&t));
        let k = center.rows as usize;
        assert_eq!(
            (metric.rows as usize, metric.columns),
            (k * (k + 1) / 2, center.columns),
            "a metric for {k} outputs"
        );
        let (kind, columns) = (kind_of_loss(loss), center.columns as usize);
        if k == 1 && loss != Loss::Softmax {
            let arguments = arguments![kind, columns, center.values, metric.values, targets.values, t.values];
            return self.sum_over("single_proximal", flat_parts(columns), arguments);
        }
        assert!(matches!(loss, Loss::Softmax | Loss::Squared), "{loss:?} has no proximal step of {k} outputs");
        // Two triangles and seven vectors for every example, see kernels/proximal.cu.
        let room = Memory::new(&self.core, columns * (k * (k + 1) + 7 * k) * size_of::<f32>());
        let arguments = arguments![kind, center, metric, targets, t, room.address()];
        self.sum_over("several_proximal", [matrix_parts(center)[0], 1], arguments)
    }

    fn rectifier_proximal(&self, z: ViewMut<'_>, a: View<'_>, m: View<'_>, gamma: f32, beta: f32) -> [f64; 3] {
        let z = matrix_mut(&z);
        self.sum_over("rectifier_proximal", matrix_parts(z), arguments![z, matrix(a), matrix(m), gamma, beta])
    }

    fn loss_curvature(&self, loss: Loss, outputs: View<'_>, t: ViewMut<'_>, factor: f32) {
        let (outputs, t) = (matrix(outputs), matrix_mut(&t));
        if loss == Loss::Softmax {
            self.on_columns("softmax_curvature", t, arguments![outputs, t, factor]);
        } else {
            self.on_elements("single_curvature", t, arguments![kind_of_loss(loss), outputs, t, factor]);
        }
    }

    fn sampled_residual(&self, loss: Loss, outputs: View<'_>, noise: View<'_>, residual: ViewMut<'_>) {
        let (outputs, noise, residual) = (matrix(outputs), matrix(noise), matrix_mut(&residual));
        if loss == Loss::Softmax {
            self.on_columns("softmax_sampled", residual, arguments![outputs, noise.values, residual]);
        } else {
            let arguments = arguments![kind_of_loss(loss), outputs, noise, residual];
            self.on_elements("single_sampled", residual, arguments);
        }
    }

    fn load(&self, table: &Table, rows: Selection<'_>, out: ViewMut<'_>) {
        let out = matrix_mut(&out);
        let columns = table.columns();
        let fits = out.rows as usize == columns && out.columns as usize == rows.len();
        assert!(fits, "a {} x {} view for rows of {table:?}", out.rows, out.columns);
        self.load_by("load", table, rows, out);
    }

    fn block_rows(&self, job: Job) -> usize {
        (BLOCK_BYTES / (size_of::<f32>() * job.width.max(1))).max(1).min(job.rows.max(1))
    }

    fn for_blocks(&self, job: Job, sum: &mut Array, body: BlockBody<'_>) -> Result<f64> {
        assert_eq!(sum.len(), job.sum, "the sum of a job");
        let size = self.block_rows(job);
        if job.rows == 0 {
            self.fill(sum, 0.0);
        }
        let mut total = 0.0;
        for (i, start) in (0..job.rows).step_by(size).enumerate() {
            total += body(self, start..(start + size).min(job.rows), sum, i > 0)?;
        }
        self.core.check()?;
        Ok(total)
    }

    fn cholesky(&self, a: View<'_>) -> Result<Array> {
        Ok(self.factorized(&[(a, 0.0)], false)?.remove(0))
    }

    fn symmetric_eigen(&self, a: View<'_>) -> Result<(Array, Array)> {
        let (values, vectors) = linalg::symmetric_eigen(&self.to_f64(a))?;
        let array = |values: &mut dyn Iterator<Item = &f64>| self.array_of(values.map(|&v| v as f32));
        Ok((array(&mut values.iter()), array(&mut vectors.iter())))
    }

    fn inverses(&self, of: &[(View<'_>, f64)]) -> Result<Vec<Array>> {
        self.factorized(of, true)
    }

    fn orthogonal_factor(&self, a: View<'_>) -> Result<Array> {
        let matrix = self.to_f64(a).mapv(|v| v as f32);
        Ok(self.array_of(linalg::orthogonal_factor(matrix)?.iter().copied()))
    }
}

/// Address of an element of an array.
fn element(array: &Array, index: usize) -> u64 {
    address(array) + (index * size_of::<f32>()) as u64
}
