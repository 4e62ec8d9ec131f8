//! What a feed-forward layer makes of the tokens of a text: pairs to which another model can be fitted.
//!
//! Inputs are the values of the norm before the layer, outputs what the layer adds to the residual stream: the difference of the
//! stream after and before it. Dropout and jitter are left out.

use super::Transformer;
use super::layout::SublayerKind;
use super::stack::Work;
use crate::error::{Error, Result};
use crate::model::LayerPairs;
use crate::oracle::Vector;

impl Transformer {
    /// The stack and sublayer of a feed-forward layer, given as `decoder.0`, counted from 0 within its stack.
    fn feed_forward(&self, layer: &str) -> Result<(usize, usize)> {
        let mut known = Vec::new();
        for (s, stack) in self.core.places.stacks.iter().enumerate() {
            let name = if stack.causal { "decoder" } else { "encoder" };
            let is_attention = |kind: &SublayerKind| matches!(kind, SublayerKind::Attention { .. });
            let layers = (0..stack.sublayers.len()).filter(|&i| !is_attention(&stack.sublayers[i].kind));
            known.extend(layers.enumerate().map(|(number, i)| (format!("{name}.{number}"), (s, i))));
        }
        let found = known.iter().find(|(name, _)| name == layer).map(|(_, place)| *place);
        found.ok_or_else(|| {
            let names: Vec<_> = known.into_iter().map(|(name, _)| name).collect();
            let finding = format!("the model has no feed-forward layer `{layer}`");
            Error::config("layer", finding, format!("it has {}", names.join(", ")))
        })
    }

    /// Pairs of the first `tokens` tokens of the training part.
    pub(super) fn pairs(&self, parameters: &Vector, layer: &str, tokens: usize) -> Result<LayerPairs> {
        let (s, i) = self.feed_forward(layer)?;
        let (core, width) = (&self.core, self.core.config.d_model);
        let weights = core.weights(parameters.array());
        let mut pairs = LayerPairs { width, inputs: Vec::new(), outputs: Vec::new() };
        let rows: Vec<usize> = (0..self.parts.train.count()).collect();
        for rows in rows.chunks(self.group) {
            if pairs.inputs.len() >= tokens * width {
                break;
            }
            let batch = self.read(&*self.parts.train, rows.iter().copied());
            core.with_work(rows.len(), |Work { pass, .. }| {
                core.load(pass, &batch, None, false);
                core.forward(weights.array(), pass);
                let stack = &pass.stacks[s];
                let count = stack.ids.len();
                let values = |array: &crate::device::Array| core.device.download(array.view(0, count, width));
                let (inputs, before, after) = (values(&stack.normed[i]), values(&stack.x[i]), values(&stack.x[i + 1]));
                for token in (0..count).filter(|&token| stack.valid.get(token).is_none_or(|&valid| valid)) {
                    let place = token * width..(token + 1) * width;
                    pairs.inputs.extend(&inputs[place.clone()]);
                    let added = after[place.clone()].iter().zip(&before[place]).map(|(after, before)| after - before);
                    pairs.outputs.extend(added);
                }
            });
        }
        let found = pairs.inputs.len() / width;
        if found < tokens {
            let finding = format!("{tokens} rows, and the training part has {found} tokens in whole sequences");
            return Err(Error::config("rows", finding, "ask for fewer"));
        }
        pairs.inputs.truncate(tokens * width);
        pairs.outputs.truncate(tokens * width);
        Ok(pairs)
    }
}
