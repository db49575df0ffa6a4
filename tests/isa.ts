/** What must not be in the native addon: code for a newer CPU where an older one would run it. */

/**
 * Functions of an x86-64 disassembly (`objdump -dC --no-show-raw-insn`) that use registers or encodings their
 * namespace does not promise: EVEX code (zmm, mask or high vector registers) belongs to wl::avx512 alone, any VEX code
 * to wl::avx512 or wl::avx2.
 */
export function leakedCode(disassembly: string): string[] {
  const found = new Set<string>();
  let name = '';
  let leaks = /(?!)/;
  for (const line of disassembly.split('\n')) {
    const head = /^[0-9a-f]+ <(.*)>:$/.exec(line);
    if (head) {
      name = head[1];
      leaks = name.includes('wl::avx512::') ? /(?!)/ : name.includes('wl::avx2::') ? EVEX : VEX;
    } else if (leaks.test(line)) found.add(name);
  }
  return [...found];
}
const EVEX = /%zmm|%k[0-7]|%[xy]mm(?:1[6-9]|[23]\d)/;
const VEX = /^\s*[0-9a-f]+:\s+(?:\{\w+\} )?(?:v[a-z]\w+|k(?:mov|or|and|not|xor)\w*)\s/;

/**
 * Symbols that an instruction set's object (`nm -gC --defined-only`) shows the linker beside its one table: it might
 * take them for all others' too.
 */
export function leakedSymbols(symbols: string): string[] {
  const names = symbols.split('\n').filter(line => line !== '');
  return names.filter(line => !/^[0-9a-f]+ [DR] wl::\w+::kTable$/.test(line));
}
