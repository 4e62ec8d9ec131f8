//! Metrics of predictions.

/// Area under the ROC curve of `scores` for telling `positive` rows from the others; ties count half (Mann-Whitney).
/// `None` where one of the two classes has no rows or a score is NaN.
#[must_use]
pub fn area_under_curve(scores: &[f64], positive: impl Fn(usize) -> bool) -> Option<f64> {
    if scores.iter().any(|s| s.is_nan()) {
        return None;
    }
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
    let (mut negatives_below, mut positives, mut pairs) = (0_u64, 0_u64, 0.0);
    let mut start = 0;
    while start < order.len() {
        let score = scores[order[start] as usize];
        let tied = order[start..].iter().take_while(|&&i| scores[i as usize] == score).count();
        let positive_tied = order[start..start + tied].iter().filter(|&&i| positive(i as usize)).count() as u64;
        let negative_tied = tied as u64 - positive_tied;
        pairs += positive_tied as f64 * (negatives_below as f64 + 0.5 * negative_tied as f64);
        positives += positive_tied;
        negatives_below += negative_tied;
        start += tied;
    }
    (positives > 0 && negatives_below > 0).then(|| pairs / (positives as f64 * negatives_below as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half() {
        // Pairs (positive, negative): .9 > .4, .9 > .5, .5 > .4, .5 = .5: 3.5 of 4.
        let scores = [0.4, 0.5, 0.5, 0.9];
        let auc = area_under_curve(&scores, |i| i >= 2);
        assert_eq!(auc, Some(3.5 / 4.0));
        assert_eq!(area_under_curve(&scores, |_| true), None);
        assert_eq!(area_under_curve(&[f64::NAN, 1.0], |i| i == 0), None);
    }
}
