// Which tokens go to which experts: the largest probabilities of every token, then for every expert the tokens that chose it, in
// order, as many as it has room for. Places follow from counts by scans, so that no result depends on which block is first.

/// Whether `p` of expert `j` goes before `best` of expert `expert`: of equal ones the first, and what is no number last.
__device__ bool goes_before(float p, u32 j, float best, u32 expert) {
  if (expert == NO_ROW || j == NO_ROW) return j != NO_ROW;
  if (p == best || (p != p && best != best)) return j < expert;
  return p > best || (best != best && p == p);
}

/// The `top_k` most probable experts of every token whose number in `part` is not NO_ROW, in order; nothing has a slot yet. A warp
/// takes a token.
extern "C" __global__ void choose_experts(Matrix p, const u32 *part, i64 top_k, u32 *choices, u32 *slots) {
  FOR_WARP_ROWS(i, p) {
    u32 *own = choices + i * top_k;
    const bool is_first = threadIdx.x % WARP == 0;
    FOR_LANES(rank, top_k) slots[i * top_k + rank] = NO_ROW;
    for (i64 rank = 0; rank < top_k; ++rank) {
      float best = 0.0f;
      u32 expert = NO_ROW;
      if (part[i] != NO_ROW) FOR_LANES(j, p.columns) {
        bool is_taken = false;
        for (i64 before = 0; before < rank; ++before) is_taken |= own[before] == (u32)j;
        if (!is_taken && goes_before(at(p, i, j), (u32)j, best, expert)) best = at(p, i, j), expert = (u32)j;
      }
      for (int distance = WARP / 2; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(ALL_LANES, best, distance);
        const u32 of = __shfl_xor_sync(ALL_LANES, expert, distance);
        if (goes_before(other, of, best, expert)) best = other, expert = of;
      }
      if (is_first) own[rank] = expert;
      // The next rank's lanes read what was chosen.
      __syncwarp();
    }
  }
}

/// How many threads of the block before this one have `is_set`; `all` is how many there are in all. All threads call it.
__device__ u32 count_before(bool is_set, u32 &all) {
  __shared__ u32 counts[THREADS / WARP];
  const u32 lane = threadIdx.x % WARP;
  u32 sum = is_set ? 1 : 0;
  for (u32 distance = 1; distance < WARP; distance *= 2) {
    const u32 other = __shfl_up_sync(ALL_LANES, sum, distance);
    if (lane >= distance) sum += other;
  }
  __syncthreads();
  if (lane == WARP - 1) counts[threadIdx.x / WARP] = sum;
  __syncthreads();
  u32 before = sum - (is_set ? 1 : 0);
  all = 0;
  for (u32 warp = 0; warp < blockDim.x / WARP; ++warp) {
    if (warp < threadIdx.x / WARP) before += counts[warp];
    all += counts[warp];
  }
  return before;
}

/// How many chose each expert. A choice beyond its room becomes `NO_ROW`: first choices come before second ones, earlier tokens
/// before later ones. A block takes an expert.
extern "C" __global__ void count_choices(u32 *choices, i64 tokens, i64 top_k, i64 room, i64 experts, u32 *chosen) {
  for (i64 expert = blockIdx.y; expert < experts; expert += gridDim.y) {
    i64 counted = 0;
    for (i64 rank = 0; rank < top_k; ++rank)
      for (i64 first = 0; first < tokens; first += blockDim.x) {
        const i64 token = first + threadIdx.x;
        u32 *choice = choices + token * top_k + rank;
        const bool is_own = token < tokens && *choice == (u32)expert;
        u32 all;
        const u32 before = count_before(is_own, all);
        if (is_own && counted + before >= room) *choice = NO_ROW;
        counted += all;
      }
    if (threadIdx.x == 0) chosen[expert] = (u32)counted;
  }
}

/// Slots of the choices that were kept, by expert and then by token, and the token and the element of `tokens x experts` at every
/// place; an expert's places begin at `starts`. A block takes an expert.
extern "C" __global__ void place_choices(const u32 *choices, i64 tokens, i64 top_k, i64 experts, const u32 *starts, u32 *slots,
                                         u32 *order, u32 *elements) {
  for (i64 expert = blockIdx.y; expert < experts; expert += gridDim.y) {
    u32 next = starts[expert];
    for (i64 first = 0; first < tokens; first += blockDim.x) {
      const i64 token = first + threadIdx.x;
      i64 place = -1;
      if (token < tokens)
        for (i64 rank = 0; rank < top_k; ++rank)
          if (choices[token * top_k + rank] == (u32)expert) place = token * top_k + rank;
      u32 all;
      const u32 slot = next + count_before(place >= 0, all);
      if (place >= 0) {
        slots[place] = slot;
        order[slot] = (u32)token;
        elements[slot] = (u32)(token * experts + expert);
      }
      next += all;
    }
  }
}

/// Parts of the sums of columns, or of their `-p ln p`, over the rows whose number in `part` is not NO_ROW; `gridDim.y` parts a sum.
extern "C" __global__ void probability_parts(Matrix p, const u32 *part, int of_entropy, double *parts) {
  const i64 chunk = (p.rows + gridDim.y - 1) / gridDim.y, first = blockIdx.y * chunk;
  const i64 end = first + chunk < p.rows ? first + chunk : p.rows;
  FOR_COLUMNS(c, p) {
    double sum = 0;
    for (i64 i = first; i < end; ++i) {
      if (part[i] == NO_ROW) continue;
      const double value = at(p, i, c);
      if (!of_entropy) sum += value;
      else if (value > 0) sum -= value * log(value);
    }
    parts[c * gridDim.y + blockIdx.y] = sum;
  }
}

/// `out_i = from[ids_i]`, zero where there is no row.
extern "C" __global__ void take(float *out, const float *from, const u32 *ids, i64 count) {
  FOR_FLAT(i, count) out[i] = ids[i] == NO_ROW ? 0.0f : from[ids[i]];
}

/// `to[ids_i] += values_i`; no element is named twice.
extern "C" __global__ void add_at(float *to, const u32 *ids, const float *values, i64 count) {
  FOR_FLAT(i, count) to[ids[i]] += values[i];
}
