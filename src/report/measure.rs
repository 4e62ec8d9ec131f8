//! The number that tells how good a dataset's models are: what figures over time and size show.
//!
//! Where targets are classes it is the accuracy. A text's next word or character is right too seldom for that to say much; of a
//! generated language it is the loss on what must be known by heart, of others bits per character. Of vectors it is what is
//! explained of what a linear map leaves, or the squared error.

use super::axes::range;
use super::groups::Dataset;
use super::runs::{Cell, CellResult};

/// One such number.
pub struct Measure {
    /// How names of figures begin.
    pub stem: &'static str,
    /// Its column in a trace.
    pub column: &'static str,
    /// Its name and, in parentheses, its unit.
    pub title: &'static str,
    /// The first words of a caption.
    pub caption: &'static str,
    /// Whether more is better.
    pub rises: bool,
    /// Its value in a result.
    pub value: fn(&CellResult) -> Option<f64>,
}

/// The accuracy.
pub(super) const ACCURACY: Measure = Measure {
    stem: "accuracy",
    column: "test_accuracy",
    title: "Test accuracy",
    caption: "Test accuracy",
    rises: true,
    value: |result| result.test_accuracy,
};

/// In the order in which they are preferred.
const MEASURES: [Measure; 5] = [
    Measure {
        stem: "explained",
        column: "test_explained_beyond_linear",
        title: "Explained of what a linear map leaves, test rows",
        caption: "What is explained beyond a linear map",
        rises: true,
        value: |result| result.test_explained_beyond_linear,
    },
    Measure {
        stem: "facts",
        column: "test_fact_loss",
        title: "Test loss on facts (nats)",
        caption: "Test loss on facts",
        rises: false,
        value: |result| result.test_fact_loss,
    },
    Measure {
        stem: "bits",
        column: "test_bits_per_character",
        title: "Test loss (bits per character)",
        caption: "Bits per character of the test part",
        rises: false,
        value: |result| result.test_bits_per_character,
    },
    ACCURACY,
    Measure {
        stem: "error",
        column: "test_squared_error",
        title: "Test squared error (a row)",
        caption: "Test squared error",
        rises: false,
        value: |result| result.test_squared_error,
    },
];

impl Measure {
    /// That of a dataset: the first that cells of most of its models recorded.
    pub fn of(dataset: &Dataset<'_>) -> &'static Self {
        let models = |measure: &Self| {
            let recorded = |cell: &&Cell| {
                (measure.value)(&cell.result).is_some() || !cell.trace.pairs("step", measure.column).is_empty()
            };
            dataset.models.iter().filter(|model| model.cells().any(|cell| recorded(&cell))).count()
        };
        let most = const { &MEASURES }.iter().map(models).max().unwrap_or(0);
        let first = const { &MEASURES }.iter().find(|measure| models(measure) == most);
        first.filter(|_| most > 0).unwrap_or(const { &ACCURACY })
    }

    /// The stems of the others.
    pub fn other_stems(&self) -> impl Iterator<Item = &'static str> {
        const { &MEASURES }.iter().map(|measure| measure.stem).filter(|stem| *stem != self.stem)
    }

    /// The value with the sign that makes more better.
    pub fn upwards(&self, value: f64) -> f64 {
        if self.rises { value } else { -value }
    }

    /// What a cell that diverged counts as.
    pub fn worst(&self) -> f64 {
        if self.rises { f64::NEG_INFINITY } else { f64::INFINITY }
    }

    /// The least that an axis over these values spans, so that noise does not look like news: two percentage points of a share, a
    /// hundredth of what is not one.
    pub fn least_span(&self, values: impl Iterator<Item = f64>) -> f64 {
        let largest = range(values.map(f64::abs)).map_or(0.0, |(_, high)| high);
        if self.rises || largest == 0.0 { 0.02 } else { 0.01 * largest }
    }
}
