/** How a failure is told on the terminal. */
import { WeightloomError } from '../core/errors.js';

/** One line that says what went wrong, with the stable code where there is one. */
export function failureLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const line = text.trim().replace(/\s*\n\s*/g, ' ');
  return error instanceof WeightloomError ? `${line} (${error.code})` : `unexpected: ${line}`;
}
