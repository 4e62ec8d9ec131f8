//! The parts of a mixture and where their parameters lie: the gate, then expert by expert, weights before biases.

use crate::device::cpu::mixture::Shape;
use crate::oracle::{Layer, Layout};
use std::sync::Arc;

/// A part that is linear in what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// `gate`, `expert1`, or with rectifiers `expert1.hidden` and `expert1.output`.
    pub name: String,
    pub layer: Layer,
}

/// All parts of a mixture over a table.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub shape: Shape,
    /// Columns of the table.
    pub inputs: usize,
    /// In the order in which they lie.
    pub all: Vec<Part>,
    pub layout: Arc<Layout>,
    /// Where the parameters lie that a pass takes in its own order: see [`crate::device::cpu::mixture`].
    pub places: Vec<usize>,
}

impl Parts {
    pub fn new(shape: Shape, inputs: usize) -> Self {
        let mut widths = vec![("gate".to_owned(), inputs, shape.experts)];
        for k in 1..=shape.experts {
            if shape.hidden > 0 {
                widths.push((format!("expert{k}.hidden"), inputs, shape.hidden));
                widths.push((format!("expert{k}.output"), shape.hidden, shape.outputs));
            } else {
                widths.push((format!("expert{k}"), inputs, shape.outputs));
            }
        }
        let mut start = 0;
        let mut all = Vec::with_capacity(widths.len());
        for (name, inputs, outputs) in widths {
            let layer = Layer { inputs, outputs, start };
            start += layer.parameters();
            all.push(Part { name, layer });
        }
        let names: Vec<(String, usize, usize)> = all
            .iter()
            .flat_map(|Part { name, layer }| {
                [(format!("{name}.weight"), layer.outputs, layer.inputs), (format!("{name}.bias"), 1, layer.outputs)]
            })
            .collect();
        let layout = Layout::new(names.iter().map(|(name, rows, columns)| (name.as_str(), *rows, *columns)));
        let rows = |layer: Layer| {
            let bias = layer.start + layer.inputs * layer.outputs;
            (0..layer.outputs).flat_map(move |output| {
                let weights = (0..layer.inputs).map(move |input| layer.start + output * layer.inputs + input);
                std::iter::once(bias + output).chain(weights)
            })
        };
        let is_second = |part: &&Part| part.name.ends_with(".output");
        let first = all.iter().filter(|part| !is_second(part)).flat_map(|part| rows(part.layer));
        let second = all.iter().filter(is_second).flat_map(|part| rows(part.layer));
        let places = first.chain(second).collect();
        Self { shape, inputs, all, layout, places }
    }

    /// The gate.
    pub fn gate(&self) -> Layer {
        self.all[0].layer
    }

    /// What expert `k`, counted from 0, makes of the inputs.
    pub fn expert(&self, k: usize) -> Layer {
        self.all[1 + k * if self.shape.hidden > 0 { 2 } else { 1 }].layer
    }

    /// What an expert with rectifiers makes of them.
    pub fn output(&self, k: usize) -> Layer {
        self.all[2 + 2 * k].layer
    }

    /// Columns of the design, its intercept included.
    pub fn columns(&self) -> usize {
        self.inputs + 1
    }

    /// Parameters of one expert.
    pub fn of_expert(&self) -> usize {
        let output = if self.shape.hidden > 0 { self.output(0).parameters() } else { 0 };
        self.expert(0).parameters() + output
    }

    /// Whether a coordinate is a weight, which a ridge penalizes.
    pub fn is_weight(&self, coordinate: usize) -> bool {
        let part = self.all.iter().rev().find(|part| part.layer.start <= coordinate);
        part.is_some_and(|Part { layer, .. }| coordinate < layer.start + layer.inputs * layer.outputs)
    }

    /// Names of all coordinates: the part, its unit and what it takes.
    pub fn names(&self, columns: &[String], classes: &[String]) -> Vec<String> {
        let Shape { outputs, .. } = self.shape;
        let mut names = Vec::with_capacity(self.layout.len());
        for Part { name, layer } in &self.all {
            let unit = |unit: usize| match name.as_str() {
                "gate" => format!("gate {}", unit + 1),
                name if name.ends_with(".hidden") => format!("{name} {}", unit + 1),
                name if outputs > 1 => format!("{name}, {}", classes[unit + 1]),
                name => name.to_owned(),
            };
            let taken = |input: usize| match name.ends_with(".output") {
                true => format!("unit {}", input + 1),
                false => columns[input].clone(),
            };
            let weights = (0..layer.outputs).flat_map(|o| (0..layer.inputs).map(move |i| (o, i)));
            names.extend(weights.map(|(o, i)| format!("{}: {}", unit(o), taken(i))));
            names.extend((0..layer.outputs).map(|o| format!("{}: (intercept)", unit(o))));
        }
        names
    }
}
