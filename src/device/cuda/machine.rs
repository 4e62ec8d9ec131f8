//! What the backend needs of a machine with CUDA: memory, copies, launches, products by a library.
//!
//! [`Driver`](super::driver::Driver) is a GPU. Tests put an emulation in its place, so that all that is written on the host's
//! side runs there too.

use crate::device::Factors;
use crate::error::{Error, Result};
use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads of every block; `THREADS` in `kernels/common.cu`.
pub const THREADS: u32 = 256;

/// A `rows x columns` matrix in device memory, `stride` elements from row to row; `Matrix` in `kernels/common.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceMatrix {
    /// Address of the first element; 0 for none.
    pub values: u64,
    /// Number of rows.
    pub rows: i64,
    /// Number of columns.
    pub columns: i64,
    /// Elements from one row to the next.
    pub stride: i64,
}

impl DeviceMatrix {
    /// No matrix.
    pub const NONE: Self = Self { values: 0, rows: 0, columns: 0, stride: 0 };
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    /// A pointer.
    Address(u64),
    /// A 64-bit integer.
    Long(i64),
    /// A 32-bit integer.
    Int(i32),
    /// A number.
    Single(f32),
    /// A matrix.
    Matrix(DeviceMatrix),
    /// The constants of Adam's update; `AdamStep` in `kernels/algebra.cu`.
    Adam([f32; 8]),
    /// A structure of six words; `Stack` in `kernels/segments.cu`, `AttentionShape` in `kernels/attention.cu`.
    Words([u64; 6]),
}

impl Argument {
    /// Where the argument lies, as a launch wants it.
    #[must_use]
    pub fn place(&self) -> *mut c_void {
        match self {
            Self::Address(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Self::Long(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Self::Int(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Self::Single(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Self::Matrix(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Self::Adam(v) => std::ptr::from_ref(v).cast_mut().cast(),
            Self::Words(v) => std::ptr::from_ref(v).cast_mut().cast(),
        }
    }
}

macro_rules! from {
    ($($from:ty => $to:expr),* $(,)?) => { $(
        impl From<$from> for Argument {
            fn from(value: $from) -> Self {
                $to(value)
            }
        }
    )* };
}

from! {
    u64 => Self::Address, f32 => Self::Single, i32 => Self::Int, DeviceMatrix => Self::Matrix,
    [f32; 8] => Self::Adam, [u64; 6] => Self::Words,
}

impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Self::Long(value as i64)
    }
}

impl From<bool> for Argument {
    fn from(value: bool) -> Self {
        Self::Int(i32::from(value))
    }
}

/// A factor of a product: a matrix, and whether it is transposed.
#[derive(Debug, Clone, Copy)]
pub struct Factor {
    /// The matrix as it lies.
    pub matrix: DeviceMatrix,
    /// Whether its transpose is meant.
    pub transposed: bool,
}

/// A machine with CUDA. What is asked is done in order; copies to the host and [`Machine::synchronize`] wait for it.
pub trait Machine: Debug + Send + Sync {
    /// The device in words.
    fn name(&self) -> String;
    /// Takes memory; its content is not set.
    ///
    /// # Errors
    /// If there is not enough, in words.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    /// Gives memory back.
    fn free(&self, address: u64);
    /// Copies from the host.
    ///
    /// # Errors
    /// What the driver answers.
    fn write(&self, to: u64, bytes: &[u8]) -> Result<()>;
    /// Copies to the host.
    ///
    /// # Errors
    /// What the driver answers, also about what was asked before.
    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()>;
    /// Runs a kernel over a grid of blocks of [`THREADS`] threads.
    ///
    /// # Errors
    /// What the driver answers.
    fn launch(&self, kernel: &'static str, grid: [u32; 2], arguments: &[Argument]) -> Result<()>;
    /// Whether [`Machine::product`] has a library for factors of 16 bits.
    fn multiplies_half(&self) -> bool;
    /// `out = a b`, or with `keep` `out += a b`, if a library is there to do it; answers whether. Factors are `f32`, which are not
    /// shortened, or with [`Factors::Half`] bf16 numbers of 16 bits, in which their strides count; sums and `out` are `f32`.
    ///
    /// # Errors
    /// What the library answers.
    fn product(&self, out: DeviceMatrix, keep: bool, a: Factor, b: Factor, factors: Factors) -> Result<bool>;
    /// Waits until all that was asked is done.
    ///
    /// # Errors
    /// What the driver answers about what was asked before.
    fn synchronize(&self) -> Result<()>;
}

/// A machine, what of its memory is in use, and its first fault. After a fault nothing more is asked of it: numbers read
/// from it are NaN, and the next answer that can be an error is that fault.
#[derive(Debug)]
pub(super) struct Core {
    machine: Box<dyn Machine>,
    fault: Mutex<Option<String>>,
    in_use: AtomicU64,
    peak: AtomicU64,
}

impl Core {
    pub fn new(machine: Box<dyn Machine>) -> Self {
        Self { machine, fault: Mutex::new(None), in_use: AtomicU64::new(0), peak: AtomicU64::new(0) }
    }

    pub fn name(&self) -> String {
        self.machine.name()
    }

    /// The largest number of bytes that were in use at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The first fault, if there was one.
    pub fn check(&self) -> Result<()> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.as_ref().map_or(Ok(()), |fault| Err(Error::Device(fault.clone())))
    }

    /// Does something with the machine unless it has failed before.
    pub fn attempt<T>(&self, action: impl FnOnce(&dyn Machine) -> Result<T>) -> Option<T> {
        self.check().ok()?;
        match action(&*self.machine) {
            Ok(value) => Some(value),
            Err(error) => {
                let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
                fault.get_or_insert(error.to_string());
                None
            }
        }
    }

    /// Runs a kernel.
    pub fn launch(&self, kernel: &'static str, grid: [u32; 2], arguments: &[Argument]) {
        self.attempt(|machine| machine.launch(kernel, grid, arguments));
    }
}

/// A piece of device memory; given back when it is dropped.
pub(super) struct Memory {
    core: Arc<Core>,
    address: u64,
    bytes: usize,
}

impl Memory {
    /// Takes memory, the content not set; a fault leaves none.
    pub fn new(core: &Arc<Core>, bytes: usize) -> Self {
        let taken = if bytes == 0 { None } else { core.attempt(|machine| machine.allocate(bytes)) };
        let bytes = if taken.is_some() { bytes } else { 0 };
        let in_use = core.in_use.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        core.peak.fetch_max(in_use, Ordering::Relaxed);
        Self { core: Arc::clone(core), address: taken.unwrap_or(0), bytes }
    }

    /// The same with content.
    pub fn with<T: Plain>(core: &Arc<Core>, values: &[T]) -> Self {
        let memory = Self::new(core, size_of_val(values));
        memory.write(0, values);
        memory
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Overwrites numbers from the `first`-th on.
    pub fn write<T: Plain>(&self, first: usize, values: &[T]) {
        if !values.is_empty() {
            let to = self.address + (first * size_of::<T>()) as u64;
            self.core.attempt(|machine| machine.write(to, bytes_of(values)));
        }
    }

    /// Reads numbers from the `first`-th on; after a fault `values` stays as it was.
    pub fn read<T: Plain>(&self, first: usize, values: &mut [T]) {
        if !values.is_empty() {
            let from = self.address + (first * size_of::<T>()) as u64;
            self.core.attempt(|machine| machine.read(from, bytes_of_mut(values)));
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.address != 0 {
            self.core.machine.free(self.address);
            self.core.in_use.fetch_sub(self.bytes as u64, Ordering::Relaxed);
        }
    }
}

impl Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes on {}", self.bytes, self.core.name())
    }
}

/// Numbers that are their bytes.
///
/// # Safety
/// Every pattern of bits is a value, and there is no padding.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: true of these.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` has no padding; the length is that of the same memory in bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and every pattern of bits is a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// An array of `f32` in device memory.
pub struct Numbers {
    memory: Memory,
    len: usize,
}

impl Numbers {
    /// `len` numbers, not set.
    pub(super) fn new(core: &Arc<Core>, len: usize) -> Self {
        Self { memory: Memory::new(core, len * size_of::<f32>()), len }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How many they are.
    pub(in crate::device) fn len(&self) -> usize {
        self.len
    }

    fn to_host(&self) -> Vec<f32> {
        let mut values = vec![f32::NAN; self.len];
        self.memory.read(0, &mut values);
        values
    }
}

/// A list of row numbers in device memory.
#[derive(Debug)]
pub struct List {
    memory: Memory,
    len: usize,
}

impl List {
    /// Room for `len` numbers, not set.
    pub(super) fn new(core: &Arc<Core>, len: usize) -> Self {
        Self { memory: Memory::new(core, len * size_of::<u32>()), len }
    }

    /// The same with content.
    pub(super) fn with(core: &Arc<Core>, list: &[u32]) -> Self {
        Self { memory: Memory::with(core, list), len: list.len() }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How many they are.
    pub(in crate::device) fn len(&self) -> usize {
        self.len
    }
}

impl Clone for Numbers {
    fn clone(&self) -> Self {
        let copy = Self::new(&self.memory.core, self.len);
        let matrix = |of: &Self| {
            let len = of.len as i64;
            Argument::Matrix(DeviceMatrix { values: of.memory.address, rows: 1, columns: len, stride: len })
        };
        if self.len > 0 {
            let blocks = self.len.div_ceil(THREADS as usize).min(1 << 16) as u32;
            self.memory.core.launch("copy", [blocks, 1], &[matrix(&copy), matrix(self)]);
        }
        copy
    }
}

impl PartialEq for Numbers {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.to_host() == other.to_host()
    }
}

impl Debug for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} numbers, {:?}", self.len, self.memory)
    }
}
