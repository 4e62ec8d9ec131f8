//! The kernels' source: the files of `kernels/`, joined.

/// The files of `kernels/` in the order in which they are joined, by name.
pub const FILES: [(&str, &str); 19] = [
    ("common.cu", include_str!("kernels/common.cu")),
    ("algebra.cu", include_str!("kernels/algebra.cu")),
    ("reductions.cu", include_str!("kernels/reductions.cu")),
    ("matrices.cu", include_str!("kernels/matrices.cu")),
    ("activations.cu", include_str!("kernels/activations.cu")),
    ("losses.cu", include_str!("kernels/losses.cu")),
    ("proximal.cu", include_str!("kernels/proximal.cu")),
    ("table.cu", include_str!("kernels/table.cu")),
    ("rows.cu", include_str!("kernels/rows.cu")),
    ("norm.cu", include_str!("kernels/norm.cu")),
    ("feed_forward.cu", include_str!("kernels/feed_forward.cu")),
    ("softmax.cu", include_str!("kernels/softmax.cu")),
    ("routing.cu", include_str!("kernels/routing.cu")),
    ("half.cu", include_str!("kernels/half.cu")),
    ("segments.cu", include_str!("kernels/segments.cu")),
    ("attention.cu", include_str!("kernels/attention.cu")),
    ("regression.cu", include_str!("kernels/regression.cu")),
    ("gram.cu", include_str!("kernels/gram.cu")),
    ("cholesky.cu", include_str!("kernels/cholesky.cu")),
];

/// One program of all kernels; messages of a compiler name the file and line.
#[must_use]
pub fn program() -> String {
    FILES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}")).collect()
}

/// The names of all kernels.
#[must_use]
pub fn kernels() -> Vec<&'static str> {
    const HEAD: &str = "extern \"C\" __global__ void ";
    let of = |text: &'static str| text.match_indices(HEAD).map(move |(place, _)| &text[place + HEAD.len()..]);
    let texts = FILES.iter().flat_map(|(_, text)| of(text));
    texts.filter_map(|rest| Some(rest.split_once('(')?.0.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_found_and_none_adds_up_by_atomics() {
        let (names, text) = (kernels(), program());
        assert_eq!(names.len(), text.matches("__global__").count());
        assert!(
            names.contains(&"adam") && names.iter().all(|name| name.chars().all(|c| c == '_' || c.is_alphanumeric()))
        );
        assert!(!text.contains("atomic") || text.matches("atomic").count() == text.matches("no atomic").count());
    }
}
