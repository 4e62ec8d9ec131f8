//! One visit of an optimizer's state serves three purposes: writing it, reading it back and measuring it.

use crate::error::{Error, Result};
use crate::oracle::{Layout, Vector};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Meets every part of an optimizer's state in turn. Names must be distinct.
pub trait StateVisitor {
    /// A vector of the parameters' shape.
    fn vector(&mut self, name: &str, value: &mut Vector);

    /// Vectors of the parameters' shape, any number of them.
    fn vectors(&mut self, name: &str, values: &mut Vec<Vector>);

    /// A list of numbers, of any length.
    fn numbers(&mut self, name: &str, value: &mut Vec<f64>);

    /// One number.
    fn number(&mut self, name: &str, value: &mut f64) {
        let mut list = vec![*value];
        self.numbers(name, &mut list);
        *value = list.first().copied().unwrap_or(*value);
    }

    /// A count below 2^53.
    fn count(&mut self, name: &str, value: &mut u64) {
        let mut number = *value as f64;
        self.number(name, &mut number);
        *value = number as u64;
    }

    /// True or false.
    fn flag(&mut self, name: &str, value: &mut bool) {
        let mut number = f64::from(u8::from(*value));
        self.number(name, &mut number);
        *value = number != 0.0;
    }
}

/// Copies a state out, bit for bit, and adds up its bytes.
#[derive(Debug, Default)]
pub struct StateWriter {
    /// The parts by name; `f32` numbers as the `f64` they are.
    pub parts: BTreeMap<String, Vec<f64>>,
    bytes: u64,
}

impl StateWriter {
    /// Bytes of everything visited, as the optimizer holds it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl StateVisitor for StateWriter {
    fn vector(&mut self, name: &str, value: &mut Vector) {
        self.bytes += value.bytes();
        self.parts.insert(name.to_owned(), value.to_host());
    }

    fn vectors(&mut self, name: &str, values: &mut Vec<Vector>) {
        self.bytes += values.iter().map(Vector::bytes).sum::<u64>();
        self.parts.insert(name.to_owned(), values.iter().flat_map(Vector::to_host).collect());
    }

    fn numbers(&mut self, name: &str, value: &mut Vec<f64>) {
        self.bytes += (value.len() * size_of::<f64>()) as u64;
        self.parts.insert(name.to_owned(), value.clone());
    }
}

/// Puts a state back that a [`StateWriter`] copied out.
#[derive(Debug)]
pub struct StateReader {
    parts: BTreeMap<String, Vec<f64>>,
    layout: Arc<Layout>,
    missing: Vec<String>,
}

impl StateReader {
    /// A reader of parts for parameters of the given layout.
    #[must_use]
    pub fn new(parts: BTreeMap<String, Vec<f64>>, layout: &Arc<Layout>) -> Self {
        Self { parts, layout: Arc::clone(layout), missing: Vec::new() }
    }

    /// Checks after the visit that every part was found and none was left.
    ///
    /// # Errors
    /// Naming the parts that do not fit.
    pub fn finish(self) -> Result<()> {
        let left: Vec<_> = self.parts.into_keys().collect();
        if self.missing.is_empty() && left.is_empty() {
            Ok(())
        } else {
            Err(Error::Numeric(format!(
                "checkpoint: state parts missing or of a wrong size: {:?}; not known: {left:?}",
                self.missing
            )))
        }
    }

    fn take(&mut self, name: &str, fits: impl Fn(usize) -> bool) -> Option<Vec<f64>> {
        let part = self.parts.remove(name).filter(|p| fits(p.len()));
        if part.is_none() {
            self.missing.push(name.to_owned());
        }
        part
    }
}

impl StateVisitor for StateReader {
    fn vector(&mut self, name: &str, value: &mut Vector) {
        let len = value.len();
        if let Some(part) = self.take(name, |n| n == len) {
            value.set_host(&part);
        }
    }

    fn vectors(&mut self, name: &str, values: &mut Vec<Vector>) {
        let len = self.layout.len().max(1);
        if let Some(part) = self.take(name, |n| n % len == 0) {
            *values =
                part.chunks(len).filter_map(|chunk| Vector::from_values(&self.layout, chunk.to_vec()).ok()).collect();
        }
    }

    fn numbers(&mut self, name: &str, value: &mut Vec<f64>) {
        if let Some(part) = self.take(name, |_| true) {
            *value = part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_the_round_trip_and_strangers_are_noticed() {
        let layout = Layout::new([("a", 1, 2)]);
        let visit = |v: &mut dyn StateVisitor, m: &mut Vector, k: &mut u64, h: &mut Vec<Vector>| {
            v.vector("momentum", m);
            v.count("k", k);
            v.vectors("history", h);
        };
        let mut m = Vector::from_values(&layout, vec![1.0, -2.5]).unwrap();
        let mut h = vec![m.clone(), m.clone()];
        let mut writer = StateWriter::default();
        visit(&mut writer, &mut m, &mut 7, &mut h);
        assert_eq!(writer.bytes(), 8 * (2 + 1 + 4));

        let (mut m2, mut k2, mut h2) = (m.zeros_like(), 0, Vec::new());
        let mut reader = StateReader::new(writer.parts.clone(), &layout);
        visit(&mut reader, &mut m2, &mut k2, &mut h2);
        reader.finish().unwrap();
        assert_eq!((m2, k2, h2), (m, 7, h));

        let mut parts = writer.parts;
        parts.insert("stranger".into(), vec![]);
        let mut reader = StateReader::new(parts, &layout);
        visit(&mut reader, &mut Vector::zeros(&layout), &mut 0, &mut Vec::new());
        assert!(reader.finish().unwrap_err().to_string().contains("stranger"));
    }
}
