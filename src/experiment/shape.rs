//! Shapes that are counted and not trained: `[[shape]]` of an experiment file, so that a claim can speak of models that no
//! machine here could hold.

use super::document::Section;
use crate::error::{Error, Result};
use crate::model::transformer::accounting::{Accounting, bytes};
use crate::model::transformer::config::{Precision, Switch};
use crate::model::transformer::presets;
use crate::oracle::did_you_mean;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A shape as plan.json has it: names and settings as those of a cell, and what was counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    model: Value,
    hyperparameters: Map<String, Value>,
    stochastic: bool,
    values: Map<String, Value>,
}

impl Shape {
    /// Reads a table `[[shape]]` and counts it.
    pub(super) fn read(section: &Section<'_>) -> Result<Self> {
        let accepts = format!("a preset of `parsimony params`: {}", presets::NAMES.join(", "));
        let field = section.require("preset", &accepts)?;
        let name = field.text(&accepts)?;
        if !presets::NAMES.contains(&name) {
            let nearest = did_you_mean(name, presets::NAMES.into_iter());
            let finding = format!("there is no preset `{name}`");
            return Err(Error::config(field.place(), finding, format!("{nearest}`preset` takes {accepts}")));
        }
        let mut config = presets::find(name)?.config;
        let label = section.get("label").map(|field| field.text("a text: what reports call it")).transpose()?;
        const STORED: &str = "\"f32\", \"bf16\" or \"selective\" (routers in f32, all else in bf16)";
        let (stored, precision) = match section.get("precision") {
            None => ("f32", Precision::Single),
            Some(field) => match field.text(STORED)? {
                "f32" => ("f32", Precision::Single),
                "bf16" => ("bf16", Precision::Half),
                "selective" => ("selective", Precision::Selective),
                _ => return Err(field.refuse(STORED)),
            },
        };
        let experts =
            section.get("experts").map(|f| f.whole(1..1 << 20, "a whole number of at least 1")).transpose()?;
        if let Some(experts) = experts {
            let Some(switch) = config.switch else {
                let finding = format!("{experts} experts, and {name} has no Switch layer");
                return Err(Error::config(section.place(), finding, "name a preset that has, such as switch-base"));
            };
            config.switch = Some(Switch { experts: experts as usize, ..switch });
        }
        section.finish()?;
        let parameters = Accounting::new(name, &config, None)?.parameters;
        let mut settings = Map::new();
        settings.insert("precision".into(), stored.into());
        if let Some(switch) = config.switch {
            settings.insert("experts".into(), switch.experts.into());
        }
        let values = json!({
            "parameters_total": parameters.total,
            "parameters_active": parameters.active,
            "parameter_bytes": bytes(&parameters, precision),
        });
        Ok(Self {
            model: json!({ "name": name, "label": label.unwrap_or(name) }),
            hyperparameters: settings,
            stochastic: false,
            values: values.as_object().cloned().unwrap_or_default(),
        })
    }
}
