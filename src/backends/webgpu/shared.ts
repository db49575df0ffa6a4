/** The text of shaders in compiled steps, whose buffers hold several storages and may be bound for others as well. */
import { DeviceLimitError } from '../../core/errors.js';
import { type Operand, Source, typeOf } from './source.js';

/** Where a shader finds what it uses, unless it has bindings of its own. */
export interface Places {
  /** The binding of a slot, and whether anything that shares it writes there. */
  at(slot: number): { readonly binding: number; readonly written: boolean };
  /** The parameter block, which becomes part of the text. */
  readonly words: readonly number[];
}

const FOUR = 'vec4<f32>';
const FOUR_WORDS = 'vec4<u32>';

/** A source whose bindings may have windows of several types. */
export class SharedSource extends Source {
  private places: Places | undefined;

  /** What `make` makes with bindings at these places. */
  at(places: Places, make: () => string): string {
    this.places = places;
    try {
      return make();
    } finally {
      this.places = undefined;
    }
  }

  // What a binding holds is known when all is collected: until then its elements are `<slot|type|index>` in brackets of
  // a kind that no shader has.
  override finish(body: string, math: string, directives: readonly string[] = []): string {
    const element = (_: string, slot: string, type: string, index: string, value?: string): string => {
      const held = this.types.get(Number(slot))!;
      const buffer = `buffer${this.slots.indexOf(Number(slot))}`;
      const one = held === FOUR_WORDS && type !== FOUR;
      const place = one ? `${buffer}[(${index}) >> 2u][(${index}) & 3u]` : `${buffer}[${index}]`;
      const bits = one ? 'u32' : held;
      if (value === undefined) return bits === type ? place : `bitcast<${type}>(${place})`;
      return `${place} = ${bits === type ? value : `bitcast<${bits}>(${value})`};`;
    };
    return super.finish(body, math, directives).replace(/⟦(\d+)\|(.*?)\|(.*?)(?:\|(.*?))?⟧/g, element);
  }

  protected override declare(slot: number, i: number): string {
    const { binding, written } = this.places?.at(slot) ?? {};
    return super.declare(slot, i, binding, written);
  }

  protected override block(): string {
    if (!this.places) return super.block();
    const kinds = [...this.named.values()];
    const values = this.places.words.map((word, i) =>
      kinds[i].kind === 'immediate' ? `bitcast<f32>(${word}u)` : `${word}u`,
    );
    return super.block(`const params = Params(${values.join(', ')})`);
  }

  protected override read(operand: Operand, index: string): string {
    return `⟦${operand.slot}|${typeOf(operand)}|${index}⟧`;
  }

  protected override assign(operand: Operand, index: string, value: string): string {
    return `⟦${operand.slot}|${typeOf(operand)}|${index}|${value}⟧`;
  }

  protected override held(wanted: string, type = wanted): string {
    if (type === wanted) return type;
    if ([type, wanted].includes('f16'))
      throw new DeviceLimitError('one buffer cannot be bound as f16 and as something else');
    return [type, wanted].some(one => one === FOUR || one === FOUR_WORDS) ? FOUR_WORDS : 'u32';
  }
}
