// Threefry-2x32 with 20 rounds in counter mode (Salmon et al. 2011). One thread makes a block of two words.
fn rotate(x: u32, by: u32) -> u32 { return (x << by) | (x >> (32u - by)); }

fn four_rounds(x: vec2<u32>, by: vec4<u32>) -> vec2<u32> {
  var v = x;
  for (var i = 0u; i < 4u; i++) {
    v.x += v.y;
    v.y = rotate(v.y, by[i]) ^ v.x;
  }
  return v;
}

fn threefry(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
  let even = vec4(13u, 15u, 26u, 6u);
  let odd = vec4(17u, 29u, 16u, 24u);
  let third = key.x ^ key.y ^ 0x1bd11bdau;
  var v = counter + key;
  v = four_rounds(v, even) + vec2(key.y, third + 1u);
  v = four_rounds(v, odd) + vec2(third, key.x + 2u);
  v = four_rounds(v, even) + vec2(key.x, key.y + 3u);
  v = four_rounds(v, odd) + vec2(key.y, third + 4u);
  return four_rounds(v, even) + vec2(third, key.x + 5u);
}

fn evaluate(block: u32) {
  let words = threefry(vec2(load_key(0u), load_key(1u)), vec2(params.start + block, 0u));
  store_y(block * 2u, output(words.x));
  if (block * 2u + 1u < params.length) { store_y(block * 2u + 1u, output(words.y)); }
}
