fn load_a(t: u32, m: u32, k: u32) -> f32 { return load_x(k, m); }
fn load_b(t: u32, k: u32, n: u32) -> f32 { return load_g(k, n); }

// The rows of task t, kept inside the operands whatever the offsets hold.
fn k_range(t: u32, part: u32) -> vec2<u32> {
  return vec2(min(u32(load_offset(t)), params.k), min(u32(load_offset(t + 1u)), params.k));
}
