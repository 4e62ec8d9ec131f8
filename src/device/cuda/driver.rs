//! A GPU through NVIDIA's driver. Driver and libraries are looked for when they are asked for, not when the program is built.

use super::compiler;
use super::machine::{Argument, DeviceMatrix, Factor, Machine, THREADS};
use super::source;
use crate::device::Factors;
use crate::error::{Error, Result};
use cudarc::cublas::result::CublasError;
use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::{CudaContext, CudaStream, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A GPU and what runs on it.
#[derive(Debug)]
pub struct Driver {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    functions: HashMap<&'static str, sys::CUfunction>,
    module: sys::CUmodule,
    /// cuBLAS, if it was found.
    blas: Option<Mutex<blas_sys::cublasHandle_t>>,
    /// 90 for `sm_90`.
    architecture: i32,
    name: String,
}

// SAFETY: the driver's handles may be used from any thread to which the context is bound, which every use does first; that
// of cuBLAS is used under its lock.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

fn driver_error(what: &str) -> impl FnOnce(DriverError) -> Error {
    move |error| Error::Device(format!("the GPU failed to {what}: {}", words(error)))
}

/// The driver's words for an error.
fn words(error: DriverError) -> String {
    match error.error_string() {
        Ok(text) => format!("{} ({:?})", text.to_string_lossy(), error.0),
        Err(_) => format!("{:?}", error.0),
    }
}

fn blas_error(error: CublasError) -> Error {
    Error::Device(format!("cuBLAS failed to multiply: {:?}", error.0))
}

/// Bytes in words.
fn size(bytes: usize) -> String {
    format!("{:.2} GiB", bytes as f64 / 1024_f64.powi(3))
}

impl Driver {
    /// Opens GPU `ordinal`, counted from 0, and makes its kernels ready, from a cache folder if there is one.
    ///
    /// # Errors
    /// If there is no driver, no such GPU, or the kernels cannot be compiled or loaded, in words.
    pub fn open(ordinal: usize, cache: Option<&Path>) -> Result<Self> {
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::Device(super::NO_DRIVER.into()));
        }
        let context = CudaContext::new(ordinal).map_err(driver_error("be opened"))?;
        let stream = context.new_stream().map_err(driver_error("make a stream"))?;
        let (major, minor) = context.compute_capability().map_err(driver_error("tell its architecture"))?;
        let architecture = 10 * major + minor;
        let model = context.name().map_err(driver_error("tell its name"))?;
        if context.has_async_alloc() {
            let mut keep_all = u64::MAX;
            // Memory that is given back stays with the process: a step takes and gives the same again and again.
            // SAFETY: the device is open, and the attribute is a 64-bit number.
            let kept = unsafe {
                result::device::get_default_mem_pool(context.cu_device()).and_then(|pool| {
                    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
                    result::mem_pool::set_attribute(pool, attribute, (&raw mut keep_all).cast())
                })
            };
            kept.map_err(driver_error("set up its memory"))?;
        }
        let code = compiler::cached(architecture, cache)?;
        // SAFETY: a whole image that the compiler made; portable code ends with a zero.
        let module =
            unsafe { result::module::load_data(code.as_ptr().cast()) }.map_err(driver_error("load its kernels"))?;
        let mut functions = HashMap::new();
        for name in source::kernels() {
            let text = CString::new(name).expect("names of kernels have no zeros");
            // SAFETY: the module was just loaded.
            let function =
                unsafe { result::module::get_function(module, text) }.map_err(driver_error("find a kernel"))?;
            functions.insert(name, function);
        }
        let blas = library(&stream)?;
        Ok(Self {
            context,
            stream,
            functions,
            module,
            blas,
            architecture,
            name: format!("cuda:{ordinal} ({model}, sm_{architecture})"),
        })
    }

    fn bind(&self) -> Result<sys::CUstream> {
        self.context.bind_to_thread().map_err(driver_error("be reached"))?;
        Ok(self.stream.cu_stream())
    }
}

/// cuBLAS on a stream, in plain single precision: without the shortened factors of TF32.
fn library(stream: &CudaStream) -> Result<Option<Mutex<blas_sys::cublasHandle_t>>> {
    // SAFETY: only looks for the library.
    if !unsafe { blas_sys::is_culib_present() } {
        return Ok(None);
    }
    let handle = blas::create_handle().map_err(blas_error)?;
    // SAFETY: the handle was just made and the stream lives as long as the driver.
    unsafe {
        blas::set_stream(handle, stream.cu_stream().cast()).map_err(blas_error)?;
        blas_sys::cublasSetMathMode(handle, blas_sys::cublasMath_t::CUBLAS_DEFAULT_MATH)
            .result()
            .map_err(blas_error)?;
    }
    Ok(Some(Mutex::new(handle)))
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        // SAFETY: made by `open`, used by no one any more.
        unsafe {
            if let Some(handle) = &self.blas {
                let _ = blas::destroy_handle(*handle.lock().unwrap_or_else(PoisonError::into_inner));
            }
            let _ = result::module::unload(self.module);
        }
    }
}

impl Machine for Driver {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let stream = self.bind()?;
        // SAFETY: the memory's content counts as not set; all its uses are on this stream.
        let taken = unsafe {
            if self.context.has_async_alloc() {
                result::malloc_async(stream, bytes)
            } else {
                result::malloc_sync(bytes)
            }
        };
        taken.map_err(|error| {
            let (free, total) = self.context.mem_get_info().unwrap_or((0, 0));
            Error::Device(format!(
                "the GPU's memory is full: {} more were asked for, {} of {} are free ({})\n  \
                 take fewer rows or a smaller batch or model, close other programs on it, or use --device cpu",
                size(bytes),
                size(free),
                size(total),
                words(error)
            ))
        })
    }

    fn free(&self, address: u64) {
        if let Ok(stream) = self.bind() {
            // SAFETY: taken by `allocate`, given back once, after what was asked before on the same stream.
            let _ = unsafe {
                if self.context.has_async_alloc() {
                    result::free_async(address, stream)
                } else {
                    result::stream::synchronize(stream).and_then(|()| result::free_sync(address))
                }
            };
        }
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the caller's memory is large enough; bytes that are not page-locked are taken over before this returns.
        unsafe { result::memcpy_htod_async(to, bytes, stream) }.map_err(driver_error("take numbers from the host"))
    }

    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the caller's memory is large enough, and the copy is waited for.
        unsafe {
            result::memcpy_dtoh_async(bytes, from, stream)
                .and_then(|()| result::stream::synchronize(stream))
                .map_err(driver_error("give numbers to the host"))
        }
    }

    fn launch(&self, kernel: &'static str, grid: [u32; 2], arguments: &[Argument]) -> Result<()> {
        let stream = self.bind()?;
        let function = *self.functions.get(kernel).expect("every kernel was found when the device was opened");
        let mut places: Vec<*mut c_void> = arguments.iter().map(Argument::place).collect();
        // SAFETY: arguments agree with the kernel's parameters (tests run every call on the CPU), and are copied by the launch.
        unsafe { result::launch_kernel(function, (grid[0], grid[1], 1), (THREADS, 1, 1), 0, stream, &mut places) }
            .map_err(|error| Error::Device(format!("the GPU failed to run {kernel}: {}", words(error))))
    }

    fn multiplies_half(&self) -> bool {
        self.blas.is_some() && self.architecture >= 80
    }

    fn product(&self, out: DeviceMatrix, keep: bool, a: Factor, b: Factor, factors: Factors) -> Result<bool> {
        let Some(handle) = &self.blas else { return Ok(false) };
        // The library numbers elements by columns: what lies row by row is to it the transpose, and out' = b' a'.
        let inner = if a.transposed { a.matrix.rows } else { a.matrix.columns };
        let sizes = [out.columns, out.rows, inner, b.matrix.stride, a.matrix.stride, out.stride];
        let mut small = [0 as c_int; 6];
        for (to, from) in small.iter_mut().zip(sizes) {
            let Ok(size) = c_int::try_from(from) else { return Ok(false) };
            *to = size.max(1);
        }
        let [m, n, k, b_stride, a_stride, out_stride] = small;
        let operation = |factor: Factor| {
            if factor.transposed {
                blas_sys::cublasOperation_t::CUBLAS_OP_T
            } else {
                blas_sys::cublasOperation_t::CUBLAS_OP_N
            }
        };
        let kind = match factors {
            Factors::Single => blas_sys::cudaDataType::CUDA_R_32F,
            Factors::Half => blas_sys::cudaDataType::CUDA_R_16BF,
        };
        let (one, beta) = (1.0_f32, if keep { 1.0_f32 } else { 0.0 });
        self.bind()?;
        let handle = handle.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: sizes and strides are those of views within their arrays; both scalars live through the call.
        unsafe {
            blas::gemm_ex(
                *handle,
                operation(b),
                operation(a),
                m,
                n,
                k,
                (&raw const one).cast(),
                b.matrix.values as *const c_void,
                kind,
                b_stride,
                a.matrix.values as *const c_void,
                kind,
                a_stride,
                (&raw const beta).cast(),
                out.values as *mut c_void,
                blas_sys::cudaDataType::CUDA_R_32F,
                out_stride,
                blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(blas_error)?;
        Ok(true)
    }

    fn synchronize(&self) -> Result<()> {
        let stream = self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(stream) }.map_err(driver_error("finish what was asked"))
    }
}
