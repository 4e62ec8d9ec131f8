//! What a cell is, as far as an expectation can tell cells apart.

use serde_json::{Map, Value};

/// A cell by its names and settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subject {
    /// What reports call the dataset, and its registered name.
    pub dataset: [String; 2],
    /// The dataset whatever its split, as one text.
    pub dataset_key: String,
    /// Whether its rows are simulated.
    pub simulated: bool,
    /// The split, the fold included, as one text: cells with the same test on the same rows.
    pub split: String,
    /// Label and registered name of the model.
    pub model: [String; 2],
    /// Label and registered name of the optimizer.
    pub optimizer: [String; 2],
    /// Settings of the model and hyperparameters of the optimizer.
    pub settings: Map<String, Value>,
    /// The seed.
    pub seed: u64,
    /// Whether the seed decides anything.
    pub stochastic: bool,
}

impl Subject {
    /// A cell from its config.json.
    #[must_use]
    pub fn of_config(config: &Value) -> Self {
        let text = |part: &str, key: &str| {
            config.get(part).and_then(|part| part.get(key)?.as_str()).unwrap_or_default().to_owned()
        };
        let names = |part: &str| {
            let name = text(part, "name");
            let label = Some(text(part, "label")).filter(|label| !label.is_empty());
            [label.unwrap_or_else(|| name.clone()), name]
        };
        let mut dataset = config.get("dataset").and_then(Value::as_object).cloned().unwrap_or_default();
        let split = dataset.remove("split").unwrap_or_default().to_string();
        let simulated = dataset.get("simulated").and_then(Value::as_bool).unwrap_or(false);
        // Rows of the parts follow from the split.
        dataset.remove("rows");
        let mut settings = Map::new();
        for part in [config.get("model"), config.get("hyperparameters")] {
            for (key, value) in part.and_then(Value::as_object).into_iter().flatten() {
                if key != "name" && key != "label" {
                    settings.insert(key.clone(), value.clone());
                }
            }
        }
        Self {
            dataset: names("dataset"),
            dataset_key: Value::Object(dataset).to_string(),
            simulated,
            split,
            model: names("model"),
            optimizer: names("optimizer"),
            settings,
            seed: config.get("seed").and_then(Value::as_u64).unwrap_or(0),
            // Without the key, whatever has a seed is taken to use it.
            stochastic: config.get("stochastic").and_then(Value::as_bool).unwrap_or(true),
        }
    }

    /// What cells share that differ in seed and split alone.
    #[must_use]
    pub fn series(&self) -> String {
        format!("{:?}{:?}{}", self.optimizer, self.model, Value::Object(self.settings.clone()))
    }

    /// Whether a condition of an expectation is met; `None` where there is no such setting.
    #[must_use]
    pub fn meets(&self, key: &str, wanted: &str) -> Option<bool> {
        match key {
            "model" => Some(self.model.iter().any(|name| name == wanted)),
            "optimizer" => Some(self.optimizer.iter().any(|name| name == wanted)),
            setting => self.settings.get(setting).map(|value| match value {
                Value::String(word) => word == wanted,
                Value::Number(number) => number.as_f64() == wanted.parse().ok(),
                Value::Bool(switch) => wanted == if *switch { "true" } else { "false" },
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    serde_json::to_string(value).is_ok_and(|text| text == wanted)
                }
            }),
        }
    }
}
