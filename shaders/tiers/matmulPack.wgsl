// A workgroup writes BLOCK rows of an operand as f16 matrices of BLOCK x BLOCK_K, one after the other along k. A row is
// scaled by the power of two that brings its largest element near 2^14, so that f16 neither overflows nor loses small
// rows. Of PARTS == 2 the second holds what the first lacks, times 2^11.
const THREADS = 256u;
const STEP = THREADS / BLOCK;

var<workgroup> largest: array<atomic<u32>, BLOCK>;

// To the 11 bits of f16 by the bits of f32: compilers take f32(f16(x)) for x.
fn rounded(x: f32) -> f32 {
  let bits = (bitcast<u32>(x) + 0x1000u) & 0xffffe000u;
  return select(bitcast<f32>(bits), 0.0, abs(x) < 0x1p-14f);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let group = group_index(id);
  if (group >= params.groups) { return; }
  let block = group % params.blocks;
  let batch = group / params.blocks;
  // Neighbouring threads walk the axis along which the operand is contiguous.
  let local = select(thread % BLOCK, thread / STEP, BY_ROWS == 1u);
  let first = select(thread / BLOCK, thread % STEP, BY_ROWS == 1u);
  let wanted = block * BLOCK + local;
  let row = min(wanted, params.rows - 1u);
  // As bits, whose order is that of magnitudes: NaN and infinity need no care.
  var most = 0u;
  for (var k = first; k < params.k; k += STEP) {
    most = max(most, bitcast<u32>(load_row(batch, row, k)) & 0x7fffffffu);
  }
  atomicMax(&largest[local], most);
  workgroupBarrier();
  let exponent = clamp(i32(atomicLoad(&largest[local]) >> 23u) - 127, -100, 127) - 14;
  if (first == 0u && wanted < params.rows) { store_exponent(batch * params.rows + row, exponent); }
  let scale = bitcast<f32>(u32(127 - exponent) << 23u);
  for (var k = first; k < params.k_blocks * BLOCK_K; k += STEP) {
    var x = 0.0;
    if (k < params.k) { x = load_row(batch, row, k) * scale; }
    let at = (group * params.k_blocks + k / BLOCK_K) * (BLOCK * BLOCK_K) + local * BLOCK_K + k % BLOCK_K;
    let first_part = rounded(x);
    store_packed(at, f16(first_part));
    if (PARTS == 2u) {
      let matrices = params.groups * params.k_blocks;
      store_packed(matrices * (BLOCK * BLOCK_K) + at, f16((x - first_part) * 2048.0));
    }
  }
}
