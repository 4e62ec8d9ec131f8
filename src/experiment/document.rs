//! A TOML file that knows where each of its values stands, so that every complaint names file, line, key, value and
//! what is accepted.

use crate::error::{Error, Result};
use crate::oracle::{SettingValue, did_you_mean};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text of a file and its name for messages.
pub(super) struct Source<'t> {
    pub name: &'t str,
    pub text: &'t str,
}

impl<'t> Source<'t> {
    /// Parses the whole file.
    pub fn parse(&self) -> Result<Spanned<DeTable<'t>>> {
        DeTable::parse(self.text).map_err(|error| {
            let place = error.span().map_or_else(|| self.name.to_owned(), |span| self.place(&span));
            Error::config(place, error.message(), "experiment files are TOML: https://toml.io")
        })
    }

    /// File and line of a span.
    pub fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        format!("{}, line {}", self.name, before.iter().filter(|&&byte| byte == b'\n').count() + 1)
    }

    /// The text of a span as it stands in the file, shortened.
    fn shown(&self, span: &Range<usize>) -> String {
        let text = self.text.get(span.clone()).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let short: String = line.chars().take(60).collect();
        if short.len() < text.len() { format!("{short} ...") } else { short }
    }
}

/// A table of the file, which remembers which of its keys were asked for.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    /// The header, for messages: `[[optimizer]]`.
    header: &'static str,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    pub fn new(source: &'a Source<'a>, header: &'static str, table: &'a DeTable<'a>, span: Range<usize>) -> Self {
        Self { source, header, table, span, known: RefCell::default() }
    }

    /// File, line and header.
    pub fn place(&self) -> String {
        let place = self.source.place(&self.span);
        if self.header.is_empty() { place } else { format!("{place}, {}", self.header) }
    }

    /// The value of a key, if the file has it.
    pub fn get(&self, key: &'static str) -> Option<Field<'a>> {
        self.known.borrow_mut().insert(key);
        let (name, value) = self.table.get_key_value(key)?;
        Some(Field { source: self.source, key: key.to_owned(), key_span: name.span(), value })
    }

    /// The value of a key that must be there; `accepts` says what it takes.
    pub fn require(&self, key: &'static str, accepts: &str) -> Result<Field<'a>> {
        self.get(key).ok_or_else(|| {
            Error::config(self.place(), format!("`{key}` is missing"), format!("`{key}` takes {accepts}"))
        })
    }

    /// The tables under a key, which may be written once (`[key]`) or several times (`[[key]]`).
    pub fn tables(&self, key: &'static str, header: &'static str) -> Result<Vec<Section<'a>>> {
        let accepts = format!("at least one table: {header} with a `name`");
        let field = self.require(key, &accepts)?;
        let one = |value: &'a Spanned<DeValue<'a>>| match value.get_ref() {
            DeValue::Table(table) => Ok(Self::new(self.source, header, table, value.span())),
            _ => Err(field.refuse(&accepts)),
        };
        match field.value.get_ref() {
            DeValue::Array(items) if !items.is_empty() => items.iter().map(one).collect(),
            _ => Ok(vec![one(field.value)?]),
        }
    }

    /// The same, where there need not be any.
    pub fn tables_if_any(&self, key: &'static str, header: &'static str) -> Result<Vec<Section<'a>>> {
        if self.get(key).is_none() { Ok(Vec::new()) } else { self.tables(key, header) }
    }

    /// Complains about keys that nobody asked for.
    pub fn finish(&self) -> Result<()> {
        let known = self.known.borrow();
        for (key, _) in self.table {
            let name: &str = key.get_ref();
            if !known.contains(name) {
                let all = known.iter().copied().collect::<Vec<_>>().join(", ");
                let remedy = format!("{}known: {all}", did_you_mean(name, known.iter().copied()));
                let place = if self.header.is_empty() {
                    self.source.place(&key.span())
                } else {
                    format!("{}, {}", self.source.place(&key.span()), self.header)
                };
                return Err(Error::config(place, format!("there is no key `{name}`"), remedy));
            }
        }
        Ok(())
    }

    /// All fields that nobody asked for.
    pub fn rest(&self) -> Vec<Field<'a>> {
        let known = self.known.borrow();
        let unknown = self.table.iter().filter(|(key, _)| !known.contains(&**key.get_ref()));
        unknown
            .map(|(key, value)| Field {
                source: self.source,
                key: key.get_ref().to_string(),
                key_span: key.span(),
                value,
            })
            .collect()
    }
}

/// A key with its value.
pub(super) struct Field<'a> {
    source: &'a Source<'a>,
    pub key: String,
    key_span: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Field<'a> {
    /// File and line.
    pub fn place(&self) -> String {
        self.source.place(&self.key_span)
    }

    /// The complaint that the value is not what the key takes.
    pub fn refuse(&self, accepts: impl std::fmt::Display) -> Error {
        let shown = self.source.shown(&self.value.span());
        let finding = format!("{} = {shown} is not accepted", self.key);
        Error::config(self.place(), finding, format!("`{}` takes {accepts}", self.key))
    }

    pub fn text(&self, accepts: &str) -> Result<&'a str> {
        self.value.get_ref().as_str().ok_or_else(|| self.refuse(accepts))
    }

    pub fn whole(&self, range: Range<u64>, accepts: &str) -> Result<u64> {
        match scalar(self.value.get_ref()) {
            Some(SettingValue::Whole(value)) if u64::try_from(value).is_ok_and(|v| range.contains(&v)) => {
                Ok(value.unsigned_abs())
            }
            _ => Err(self.refuse(accepts)),
        }
    }

    pub fn number(&self, accepts: &str) -> Result<f64> {
        match scalar(self.value.get_ref()) {
            Some(SettingValue::Whole(value)) => Ok(value as f64),
            Some(SettingValue::Real(value)) if value.is_finite() => Ok(value),
            _ => Err(self.refuse(accepts)),
        }
    }

    /// The items of an array, or the value itself as the only item.
    pub fn items(&self) -> Vec<Field<'a>> {
        let item = |value: &'a Spanned<DeValue<'a>>| Field {
            source: self.source,
            key: self.key.clone(),
            key_span: value.span(),
            value,
        };
        match self.value.get_ref() {
            DeValue::Array(items) => items.iter().map(item).collect(),
            _ => vec![item(self.value)],
        }
    }

    pub fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// A number, word or switch.
    pub fn scalar(&self) -> Result<SettingValue> {
        scalar(self.value.get_ref()).ok_or_else(|| self.refuse("a number, a word, true or false, or an array of them"))
    }

    /// The value as the table that `change` may still complete, read into a type that serde knows.
    pub fn read_into<T: DeserializeOwned>(&self, accepts: &str, change: impl FnOnce(&mut toml::Value)) -> Result<T> {
        let mut value = owned(self.value.get_ref()).ok_or_else(|| self.refuse(accepts))?;
        change(&mut value);
        T::deserialize(value).map_err(|error| {
            let finding = format!("{} is not accepted: {}", self.key, error.message());
            Error::config(self.place(), finding, format!("`{}` takes {accepts}", self.key))
        })
    }

    pub fn table(&self, header: &'static str) -> Option<Section<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(Section::new(self.source, header, table, self.key_span.clone())),
            _ => None,
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<SettingValue> {
    match owned(value)? {
        toml::Value::Boolean(value) => Some(SettingValue::Switch(value)),
        toml::Value::Integer(value) => Some(SettingValue::Whole(value)),
        toml::Value::Float(value) => Some(SettingValue::Real(value)),
        toml::Value::String(value) => Some(SettingValue::Word(value)),
        _ => None,
    }
}

/// The value without its spans; `None` for an integer beyond 64 bits.
fn owned(value: &DeValue<'_>) -> Option<toml::Value> {
    Some(match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(digits) => toml::Value::Integer(i64::from_str_radix(digits.as_str(), digits.radix()).ok()?),
        DeValue::Float(digits) => toml::Value::Float(digits.as_str().parse().ok()?),
        DeValue::Boolean(value) => toml::Value::Boolean(*value),
        DeValue::Datetime(value) => toml::Value::Datetime(*value),
        DeValue::Array(items) => {
            toml::Value::Array(items.iter().map(|item| owned(item.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let entries = table.iter().map(|(key, item)| Some((key.get_ref().to_string(), owned(item.get_ref())?)));
            toml::Value::Table(entries.collect::<Option<_>>()?)
        }
    })
}
