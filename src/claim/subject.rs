//! What a cell is, as far as an expectation can tell cells apart.

use serde_json::{Map, Value};

/// A cell by its names and settings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subject {
    /// What reports call the dataset, and its registered name; a file has none.
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
        let of = |part: &str| config.get(part).and_then(Value::as_object).cloned().unwrap_or_default();
        let mut settings = of("hyperparameters");
        for (key, value) in of("model") {
            if key != "name" && key != "label" {
                // A setting that both have is the optimizer's.
                let key = if settings.contains_key(&key) { format!("model_{key}") } else { key };
                settings.insert(key, value);
            }
        }
        let mut called = names("dataset");
        if config.pointer("/dataset/source/file").is_some() {
            // Whatever a file is called, it is not the registered dataset.
            called[1].clear();
        }
        Self {
            dataset: called,
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

    /// The split without the fold, where it is one of several folds: these hold different test rows.
    #[must_use]
    pub fn folds(&self) -> Option<Value> {
        let mut split: Value = serde_json::from_str(&self.split).ok()?;
        split.get_mut("folds")?.as_object_mut()?.remove("fold")?;
        Some(split)
    }

    /// Shapes that are counted and not trained, once for each dataset of the cells: beside these stands what follows from no
    /// data. Once where there are no cells.
    #[must_use]
    pub fn beside<'a>(shapes: &[Self], cells: impl Iterator<Item = &'a Self>) -> Vec<Self> {
        let mut datasets: Vec<&Self> = Vec::new();
        for cell in cells {
            if datasets.iter().all(|other| other.dataset_key != cell.dataset_key) {
                datasets.push(cell);
            }
        }
        let nowhere = Self { dataset: ["shapes alone".into(), String::new()], ..Self::default() };
        if datasets.is_empty() {
            datasets.push(&nowhere);
        }
        let on = |shape: &Self, cell: &Self| Self {
            dataset: cell.dataset.clone(),
            dataset_key: cell.dataset_key.clone(),
            simulated: cell.simulated,
            split: cell.split.clone(),
            ..shape.clone()
        };
        datasets.iter().flat_map(|cell| shapes.iter().map(|shape| on(shape, cell))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_setting_of_model_and_optimizer_alike_tells_models_apart() {
        let of = |ridge: f64| {
            Subject::of_config(&json!({
                "dataset": {"name": "d"}, "model": {"name": "mlp", "ridge": ridge},
                "optimizer": {"name": "admm"}, "hyperparameters": {"ridge": 1e-4},
            }))
        };
        assert_ne!(of(0.0).series(), of(0.1).series());
        assert_eq!(of(0.1).meets("ridge", "1e-4"), Some(true));
        assert_eq!(of(0.1).meets("model_ridge", "0.1"), Some(true));
    }

    #[test]
    fn a_file_is_not_the_registered_dataset_that_it_is_named_after() {
        let of = |source: Value| {
            Subject::of_config(&json!({"dataset": {"name": "higgs-sample", "source": source}})).dataset[1].clone()
        };
        assert_eq!(of(json!({"registered": "higgs-sample"})), "higgs-sample");
        assert_eq!(of(json!({"file": {"path": "/tmp/higgs-sample"}})), "");
    }

    #[test]
    fn folds_of_one_partition_agree_in_all_but_the_fold() {
        let of = |split: Value| Subject { split: split.to_string(), ..Subject::default() }.folds();
        let fold = |count: u64, fold: u64| of(json!({"folds": {"count": count, "fold": fold, "seed": 0}}));
        assert!(fold(10, 1).is_some() && fold(10, 1) == fold(10, 2) && fold(10, 1) != fold(5, 1));
        assert_eq!(of(json!({"last": {"test": 3}})), None);
    }
}
