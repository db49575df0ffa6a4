fn load_a(t: u32, m: u32, k: u32) -> f32 { return load_x(k, m); }
fn load_b(t: u32, k: u32, n: u32) -> f32 { return load_g(k, n); }

// The rows of task t, kept inside the operands whatever the offsets hold. Their first row is FIRST.
fn row_of(t: u32) -> u32 { return min(u32(max(load_offset(t) - i32(FIRST), 0)), params.k); }
fn k_range(t: u32, part: u32) -> vec2<u32> {
  return vec2(row_of(t), row_of(t + 1u));
}
