//! Targets as they stand in the file, and their way to class indices or real numbers.
//!
//! Numbers stay numbers until all of them are seen: at most [`MAX_NUMERIC_CLASSES`] distinct integers are classes, all
//! else is regression, unless the options say which. Names are collected in a dictionary; a name that is a number is
//! written in its shortest form, so that `1.0` and `1` are one class.

use super::{MAX_NUMERIC_CLASSES, TaskKind};
use crate::data::Task;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;

/// More distinct labels than this are no classes.
pub(super) const MAX_CLASSES: usize = 1 << 16;

/// Targets as read, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum RawTargets {
    /// Numbers, each the `f32` nearest to its text.
    Numbers {
        /// One value per row.
        values: Vec<f32>,
        /// The distinct values in increasing order while all are integers and at most [`MAX_NUMERIC_CLASSES`].
        integers: Option<Vec<i64>>,
    },
    /// Names: one code per row into `names`, which stand in order of appearance.
    Names {
        /// The distinct names.
        names: Vec<String>,
        /// One index into `names` per row.
        codes: Vec<u32>,
    },
}

/// The targets of one block of rows, or none.
pub(super) type LabelBlock = Option<RawTargets>;

/// A finding and what to do about it; the caller knows the place.
pub(super) type Complaint = (String, String);

impl RawTargets {
    pub(super) fn numbers() -> Self {
        Self::Numbers { values: Vec::new(), integers: Some(Vec::new()) }
    }

    pub(super) fn names() -> Self {
        Self::Names { names: Vec::new(), codes: Vec::new() }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers { values, .. } => values.len(),
            Self::Names { codes, .. } => codes.len(),
        }
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a number; does nothing to names.
    pub(super) fn push_number(&mut self, exact: f64, nearest: f32) {
        if let Self::Numbers { values, integers } = self {
            values.push(nearest);
            note_integer(integers, exact);
        }
    }

    /// Adds a name by its code; does nothing to numbers.
    pub(super) fn push_code(&mut self, code: u32) {
        if let Self::Names { codes, .. } = self {
            codes.push(code);
        }
    }

    /// Appends the targets of the rows that follow.
    ///
    /// # Errors
    /// If there are more distinct names than classes can be.
    pub(super) fn append(&mut self, next: Self, dictionary: &mut Dictionary) -> Result<(), Complaint> {
        match (self, next) {
            (Self::Numbers { values, integers }, Self::Numbers { values: more, integers: new }) => {
                values.extend_from_slice(&more);
                match new {
                    Some(new) => new.into_iter().for_each(|value| note_integer(integers, value as f64)),
                    None => *integers = None,
                }
                Ok(())
            }
            (Self::Names { names, codes }, Self::Names { names: new, codes: more }) => {
                let map: Vec<u32> = new
                    .into_iter()
                    .map(|name| dictionary.code(&name, names))
                    .collect::<Option<_>>()
                    .ok_or_else(too_many_classes)?;
                codes.extend(more.into_iter().map(|code| map[code as usize]));
                Ok(())
            }
            _ => Err(("the labels change from numbers to names".into(), "give all of them in one form".into())),
        }
    }

    /// Decides what the targets are and gives them as numbers: class indices or real values.
    pub(super) fn classify(&self, kind: Option<TaskKind>) -> Result<(Vec<f32>, Task), Complaint> {
        match self {
            Self::Names { .. } if kind == Some(TaskKind::Regression) => Err((
                "the targets are names, which regression cannot use".into(),
                "ask for classification, or name a numeric column as the target".into(),
            )),
            Self::Names { names, codes } => {
                let mut used = vec![false; names.len()];
                codes.iter().for_each(|&code| used[code as usize] = true);
                let mut order: Vec<usize> = (0..names.len()).filter(|&i| used[i]).collect();
                sort_names(&mut order, names);
                let mut index = vec![0.0f32; names.len()];
                order.iter().enumerate().for_each(|(i, &code)| index[code] = i as f32);
                let classes: Vec<String> = order.iter().map(|&i| names[i].clone()).collect();
                check_classes(&classes, codes.len())?;
                Ok((codes.iter().map(|&code| index[code as usize]).collect(), Task::Classes(classes)))
            }
            Self::Numbers { values, integers } => match (kind, integers) {
                (Some(TaskKind::Regression), _) | (None, None) => Ok((values.clone(), Task::Regression)),
                (None, Some(distinct)) => numeric_classes(values, distinct),
                (Some(TaskKind::Classification), _) => classes_of_values(values),
            },
        }
    }

    /// The targets as numbers in the sense of `task`: indices of its classes, matched by name, or real values.
    ///
    /// # Errors
    /// If a label is not among the classes, or names meet regression.
    pub fn encode(&self, task: &Task) -> Result<Vec<f32>> {
        let unfit = |finding: String, remedy: &str| Error::config("targets", finding, remedy);
        match (task, self) {
            (Task::Regression, Self::Numbers { values, .. }) => Ok(values.clone()),
            (Task::Regression, Self::Names { names, .. }) => {
                let first = names.first().map_or("", String::as_str);
                Err(unfit(format!("the label {first:?} is not a number"), "give a numeric target column"))
            }
            (Task::Classes(classes), targets) => {
                let index: HashMap<&str, usize> = classes.iter().enumerate().map(|(i, c)| (c.as_str(), i)).collect();
                let find = |name: &str| {
                    index.get(name).map(|&i| i as f32).ok_or_else(|| {
                        let known = classes.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
                        unfit(
                            format!("the label {name:?} is none of the model's classes"),
                            &format!("it knows {known}"),
                        )
                    })
                };
                match targets {
                    Self::Names { names, codes } => {
                        let map = names.iter().map(|name| find(name)).collect::<Result<Vec<f32>>>()?;
                        Ok(codes.iter().map(|&code| map[code as usize]).collect())
                    }
                    Self::Numbers { values, .. } => {
                        let mut last = (f32::NAN, 0.0);
                        let mut encode = |&value: &f32| {
                            if value != last.0 {
                                last = (value, find(&number_name(f64::from(value)))?);
                            }
                            Ok(last.1)
                        };
                        values.iter().map(&mut encode).collect()
                    }
                }
            }
        }
    }
}

/// Which code a name has.
#[derive(Default)]
pub(super) struct Dictionary {
    codes: HashMap<String, u32>,
}

impl Dictionary {
    /// The code of `name`, which joins `names` if it is new; `None` if there are too many.
    pub(super) fn code(&mut self, name: &str, names: &mut Vec<String>) -> Option<u32> {
        if let Some(&code) = self.codes.get(name) {
            return Some(code);
        }
        if names.len() == MAX_CLASSES {
            return None;
        }
        let code = names.len() as u32;
        names.push(name.to_owned());
        self.codes.insert(name.to_owned(), code);
        Some(code)
    }
}

/// The name of a label's class: numbers in their shortest form, text as it is.
pub(super) fn label_name(field: &[u8]) -> Cow<'_, str> {
    match fast_float2::parse::<f64, _>(field) {
        Ok(value) if value.is_finite() => Cow::Owned(number_name(value)),
        _ => String::from_utf8_lossy(field),
    }
}

pub(super) fn too_many_classes() -> Complaint {
    (
        format!("more than {MAX_CLASSES} distinct labels"),
        "classes repeat; name another column as the target, or ask for regression if these are numbers".into(),
    )
}

fn number_name(value: f64) -> String {
    // Adding zero turns -0 into 0.
    format!("{}", value + 0.0)
}

/// Keeps the sorted list of distinct integers, or gives it up.
fn note_integer(integers: &mut Option<Vec<i64>>, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let Some(known) = integers else { return };
    if value.fract() != 0.0 || value.abs() > EXACT {
        *integers = None;
        return;
    }
    let value = value as i64;
    if let Err(place) = known.binary_search(&value) {
        if known.len() == MAX_NUMERIC_CLASSES {
            *integers = None;
        } else {
            known.insert(place, value);
        }
    }
}

fn numeric_classes(values: &[f32], distinct: &[i64]) -> Result<(Vec<f32>, Task), Complaint> {
    if distinct.windows(2).any(|pair| pair[0] as f32 == pair[1] as f32) {
        return Err((
            "the labels are integers so large that 32-bit numbers confuse them".into(),
            "ask for task = \"classification\", which reads them as names".into(),
        ));
    }
    classes_of_values(values)
}

/// Classes from numbers: each distinct value is one.
fn classes_of_values(values: &[f32]) -> Result<(Vec<f32>, Task), Complaint> {
    let mut distinct: Vec<f32> = Vec::new();
    for &value in values {
        if let Err(place) = distinct.binary_search_by(|known| known.total_cmp(&(value + 0.0))) {
            if distinct.len() == MAX_CLASSES {
                return Err(too_many_classes());
            }
            distinct.insert(place, value + 0.0);
        }
    }
    let classes: Vec<String> = distinct.iter().map(|&value| number_name(f64::from(value))).collect();
    check_classes(&classes, values.len())?;
    let index = |&value: &f32| distinct.partition_point(|&known| known < value) as f32;
    Ok((values.iter().map(index).collect(), Task::Classes(classes)))
}

fn check_classes(classes: &[String], rows: usize) -> Result<(), Complaint> {
    if let [only] = classes {
        return Err((
            format!("all {rows} rows have the label {only:?}: a single class"),
            "give rows of at least two classes, or name another target column".into(),
        ));
    }
    Ok(())
}

/// Numerical order if all names are numbers, else by name.
fn sort_names(order: &mut [usize], names: &[String]) {
    let numbers: Vec<f64> = names.iter().map(|name| name.parse().unwrap_or(f64::NAN)).collect();
    if order.iter().all(|&i| numbers[i].is_finite()) {
        order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    } else {
        order.sort_by(|&a, &b| names[a].cmp(&names[b]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[f64]) -> RawTargets {
        let mut targets = RawTargets::numbers();
        values.iter().for_each(|&value| targets.push_number(value, value as f32));
        targets
    }

    #[test]
    fn few_integers_are_classes_in_numerical_order() {
        let (indices, task) = numbers(&[1.0, -1.0, 10.0, 1.0]).classify(None).unwrap();
        assert_eq!(task, Task::Classes(vec!["-1".into(), "1".into(), "10".into()]));
        assert_eq!(indices, [1.0, 0.0, 2.0, 1.0]);
        assert_eq!(numbers(&[1.0, 2.5]).classify(None).unwrap().1, Task::Regression);
        let many: Vec<f64> = (0..=MAX_NUMERIC_CLASSES).map(|i| i as f64).collect();
        assert_eq!(numbers(&many).classify(None).unwrap().1, Task::Regression);
    }

    #[test]
    fn a_single_class_is_refused_and_large_labels_are_not_confused() {
        assert!(numbers(&[1.0, 1.0]).classify(None).unwrap_err().0.contains("single class"));
        assert!(numbers(&[20_240_101.0, 20_240_102.0, 20_240_100.0]).classify(None).is_err());
        assert!(numbers(&[1.0, 1.0]).classify(Some(TaskKind::Regression)).is_ok());
    }

    #[test]
    fn labels_meet_the_classes_of_a_model_by_name() {
        let classes = Task::Classes(vec!["0".into(), "1".into()]);
        assert_eq!(numbers(&[1.0, 0.0]).encode(&classes).unwrap(), [1.0, 0.0]);
        assert!(numbers(&[2.0]).encode(&classes).unwrap_err().to_string().contains("\"2\" is none"));
        let names = RawTargets::Names { names: vec!["1".into(), "0".into()], codes: vec![0, 0, 1] };
        assert_eq!(names.encode(&classes).unwrap(), [1.0, 1.0, 0.0]);
    }
}
