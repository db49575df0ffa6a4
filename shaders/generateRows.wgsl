// The rows of a task, kept inside the operands whatever the offsets hold; none for a task that does not exist.
fn rows_of(t: u32) -> vec2<u32> {
  if (t >= params.tasks) { return vec2(0u, 0u); }
  let to = min(u32(max(start_of(t + 1u), 0)), params.rows);
  return vec2(min(u32(max(start_of(t), 0)), to), to);
}
