//! The numbers of a cell that an expectation may speak of, and which noise each carries.

/// What makes a number come out differently when it is measured again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Nothing: it follows from the model and its settings.
    None,
    /// The seed, where anything is drawn; else nothing.
    Seed,
    /// The seed, and the machine: it takes several measurements even where nothing is drawn.
    Clock,
    /// The seed, and which rows are in the test set: a mean over rows whose outcomes are stored.
    TestRows,
    /// The seed, and which rows are held out, but these are not known one by one: it takes several splits.
    HeldOut,
}

/// A number of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name: a key of result.json, or one that is derived from the trace.
    pub name: &'static str,
    /// Its noise.
    pub noise: Noise,
    /// Whether it is when the target was first reached: a miss is infinity.
    pub to_target: bool,
}

const fn metric(name: &'static str, noise: Noise) -> Metric {
    Metric { name, noise, to_target: false }
}

const fn to_target(name: &'static str, noise: Noise) -> Metric {
    Metric { name, noise, to_target: true }
}

/// All metrics.
pub const METRICS: &[Metric] = &[
    metric("parameters_total", Noise::None),
    metric("parameters_active", Noise::None),
    metric("parameter_bytes", Noise::None),
    metric("test_accuracy", Noise::TestRows),
    metric("test_loss", Noise::TestRows),
    metric("test_auc", Noise::HeldOut),
    metric("test_squared_error", Noise::TestRows),
    metric("validation_accuracy", Noise::HeldOut),
    metric("validation_loss", Noise::HeldOut),
    metric("validation_squared_error", Noise::HeldOut),
    metric("validation_explained_variance", Noise::HeldOut),
    metric("validation_explained_beyond_linear", Noise::HeldOut),
    metric("test_explained_variance", Noise::HeldOut),
    metric("test_explained_beyond_linear", Noise::TestRows),
    metric("validation_bits_per_character", Noise::HeldOut),
    metric("validation_grammar_loss", Noise::HeldOut),
    metric("validation_fact_loss", Noise::HeldOut),
    metric("validation_sum_loss", Noise::HeldOut),
    metric("test_bits_per_character", Noise::TestRows),
    metric("test_grammar_loss", Noise::TestRows),
    metric("test_fact_loss", Noise::TestRows),
    metric("test_sum_loss", Noise::TestRows),
    metric("objective", Noise::Seed),
    metric("gradient_norm", Noise::Seed),
    metric("train_loss", Noise::Seed),
    metric("train_accuracy", Noise::Seed),
    metric("train_squared_error", Noise::Seed),
    metric("dead_experts", Noise::Seed),
    metric("parameters_nonzero", Noise::Seed),
    metric("parameter_compressed_bytes", Noise::Seed),
    metric("optimizer_state_bytes", Noise::Seed),
    metric("steps", Noise::Seed),
    metric("data_passes", Noise::Seed),
    metric("gradient_equivalents", Noise::Seed),
    metric("flops", Noise::Seed),
    metric("bytes_moved", Noise::Seed),
    metric("setup_seconds", Noise::Clock),
    metric("train_seconds", Noise::Clock),
    metric("peak_resident_bytes", Noise::Clock),
    metric("peak_anonymous_bytes", Noise::Clock),
    metric("peak_device_bytes", Noise::Seed),
    to_target("time_to_target", Noise::Clock),
    to_target("steps_to_target", Noise::Seed),
    to_target("passes_to_target", Noise::Seed),
    to_target("gradient_equivalents_to_target", Noise::Seed),
    to_target("flops_to_target", Noise::Seed),
    metric("first_test_accuracy", Noise::HeldOut),
    metric("left_out_loss", Noise::HeldOut),
    metric("left_out_accuracy", Noise::HeldOut),
    metric("effective_degrees_of_freedom", Noise::HeldOut),
];

impl Metric {
    /// Whether it is recorded with `inspect = true` alone.
    #[must_use]
    pub fn is_inspected(&self) -> bool {
        matches!(self.name, "left_out_loss" | "left_out_accuracy" | "effective_degrees_of_freedom")
    }

    /// The metric of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| metric.name == name)
    }
}
