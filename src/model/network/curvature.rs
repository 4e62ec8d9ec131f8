//! Products with the Gauss-Newton matrix `(1/m) sum_i J_i' H_i J_i + ridge` over the rows of a selection.
//!
//! What the forward pass made of each block is kept while it fits into [`KEPT_BYTES`]; else every product passes forward
//! again.

use super::Network;
use super::stack::{Pass, Work};
use crate::error::Result;
use crate::oracle::{Answer, Cost, Curvature, CurvatureMatrix, Rows, Vector};
use std::sync::Mutex;

/// Forward passes of a curvature batch are kept up to this size.
const KEPT_BYTES: usize = 512 << 20;

struct NetworkCurvature<'a> {
    network: &'a Network,
    at: Vector,
    rows: Rows<'a>,
    /// A pass for each block; empty where they would not fit.
    passes: Vec<Pass>,
}

impl Curvature for Network {
    fn curvature_at<'a>(&'a self, at: &Vector, rows: Rows<'a>) -> Result<Answer<Box<dyn CurvatureMatrix + 'a>>> {
        let (selection, _) = self.selection(rows);
        let stack = &self.stack;
        let job = stack.job(selection.len(), 0);
        let size = stack.device.block_rows(job);
        let mut passes = Vec::new();
        if job.rows * job.width * size_of::<f32>() <= KEPT_BYTES {
            let slots: Vec<Mutex<Pass>> =
                (0..job.rows.div_ceil(size)).map(|_| Mutex::new(stack.new_pass(size))).collect();
            stack.device.for_blocks(job, &mut stack.device.zeros(0), &|device, block, _, _| {
                let mut pass = slots[block.start / size].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                self.train.load(device, selection.part(block.clone()), &mut pass);
                stack.forward(device, at.array(), &mut pass, block.len());
                Ok(0.0)
            })?;
            passes = slots
                .into_iter()
                .map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
                .collect();
        }
        let cost = self.cost(if passes.is_empty() { 0 } else { selection.len() }, 1.0, 0.0);
        Ok(Answer { value: Box::new(NetworkCurvature { network: self, at: at.clone(), rows, passes }), cost })
    }
}

impl CurvatureMatrix for NetworkCurvature<'_> {
    fn multiply(&self, v: &Vector, product: &mut Vector) -> Result<Cost> {
        let network = self.network;
        let (selection, divisor) = network.selection(self.rows);
        let stack = &network.stack;
        let job = stack.job(selection.len(), stack.layout.len());
        let size = stack.device.block_rows(job);
        let (at, along) = (self.at.array(), v.array());
        stack.device.for_blocks(job, product.array_mut(), &|device, block, sum, keep| {
            stack.with_work(size, |Work { pass, flow }| {
                let columns = block.len();
                let pass = if let Some(kept) = self.passes.get(block.start / size) {
                    kept
                } else {
                    network.train.load(device, selection.part(block.clone()), pass);
                    stack.forward(device, at, pass, columns);
                    pass
                };
                stack.tangent(device, at, along, pass, flow, columns);
                stack.through_loss(device, pass, flow, columns, divisor.recip() as f32);
                stack.backward(device, at, pass, flow, columns, false, sum, keep);
            });
            Ok(0.0)
        })?;
        network.add_ridge(along, self.rows, product.array_mut());
        let forward = if self.passes.is_empty() { 1.0 } else { 0.0 };
        Ok(network.cost(selection.len(), 2.0 + forward, 2.0))
    }
}
