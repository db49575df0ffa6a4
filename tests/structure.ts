/** The rules of the source tree as functions of text, so that each can be shown to fail. Complaints are sentences. */
import { posix } from 'node:path';
import ts from 'typescript';

/** Rooms of src/ from the ground up; those of one row do not see each other. */
const FLOORS = [['core'], ['program'], ['ops'], ['nn', 'optim', 'data', 'io'], ['hyper'], ['meta'], ['cli']];
/** What backends import from core for its values; the rest of core they import for its types. */
const BACKEND_VALUES = ['src/core/errors.ts', 'src/core/backend.ts'];
/** `ref` finds the loops it runs in core's op table, both CPU backends walk strides, `choose` puts a backend in use. */
const MORE_BACKEND_VALUES: Record<string, readonly string[]> = {
  'src/backends/ref.ts': ['src/core/op.ts', 'src/core/shape.ts'],
  'src/backends/cpu.ts': ['src/core/shape.ts'],
  'src/backends/choose.ts': ['src/core/tensor.ts'],
};
/** Rooms that need files, and so may use Node's modules; the rest runs in browsers too. */
const NODE_PLACES = [/^src\/(cli|data|io)\//, /^src\/backends\/cpu\b/, /^src\/backends\/stored\.ts$/];

/** One import, `export ... from`, or `import()` of a module. */
export interface Import {
  readonly from: string;
  readonly typesOnly: boolean;
}

const parse = (path: string, text: string) => ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);

/** Everything a module imports or re-exports, in order. */
export function importsOf(path: string, text: string): Import[] {
  const found: Import[] = [];
  const add = (specifier: ts.Expression | undefined, typesOnly: boolean) => {
    if (specifier && ts.isStringLiteralLike(specifier)) found.push({ from: specifier.text, typesOnly });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      const clause = node.importClause;
      const named = clause?.namedBindings;
      const allTypes =
        named !== undefined &&
        ts.isNamedImports(named) &&
        !clause?.name &&
        named.elements.length > 0 &&
        named.elements.every(element => element.isTypeOnly);
      add(node.moduleSpecifier, Boolean(clause?.isTypeOnly) || allTypes);
    } else if (ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, node.isTypeOnly);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal as ts.Expression, true);
    }
    ts.forEachChild(node, visit);
  };
  visit(parse(path, text));
  return found;
}

const roomOf = (path: string) => /^src\/([^/]+)\//.exec(path)?.[1];
const floorOf = (room: string | undefined) =>
  FLOORS.findIndex(rooms => room !== undefined && rooms.includes(room));

/** Complaints about the imports of one file below src/: they point down, and into backends from nowhere below. */
export function layeringProblems(path: string, text: string): string[] {
  const room = roomOf(path);
  const problems: string[] = [];
  for (const { from, typesOnly } of importsOf(path, text)) {
    if (from.startsWith('node:') && !typesOnly && !NODE_PLACES.some(place => place.test(path))) {
      problems.push(`${path} imports ${from}: this part must run in browsers`);
    }
    if (!from.startsWith('.')) continue;
    const target = posix.normalize(posix.join(posix.dirname(path), from)).replace(/\.js$/, '.ts');
    const complaint = edgeProblem(path, room, target, typesOnly);
    if (complaint) problems.push(`${path} imports ${target}: ${complaint}`);
  }
  return problems;
}

function edgeProblem(
  path: string,
  room: string | undefined,
  target: string,
  typesOnly: boolean,
): string | null {
  const above = roomOf(target);
  // The front door and what stands beside it may open any room; only the front door and the command line use them.
  if (room === undefined || room === above) return null;
  if (room === 'cli') return null;
  if (!target.startsWith('src/')) return 'only the command line looks outside src';
  if (above === undefined) return `${room} stands below it`;
  if (room === 'backends') {
    if (above !== 'core') return 'backends see core alone';
    const values = [...BACKEND_VALUES, ...(MORE_BACKEND_VALUES[path] ?? [])];
    return typesOnly || values.includes(target) ? null : "backends import core's types only";
  }
  if (above === 'backends') return 'backends are reached through core';
  if (floorOf(room) < 0) return `the room ${room} is not on the plan`;
  if (floorOf(above) < 0) return `the room ${above} is not on the plan`;
  return floorOf(above) < floorOf(room) ? null : `${room} does not stand above ${above}`;
}

/** Complaints if a module holds anything but `export ... from`. */
export function facadeProblems(path: string, text: string): string[] {
  return parse(path, text)
    .statements.filter(statement => !(ts.isExportDeclaration(statement) && statement.moduleSpecifier))
    .map(statement => `${path} does more than re-export: ${statement.getText().split('\n')[0]}`);
}

/** Lines of a TypeScript file that hold code: not blank, not comment alone. */
export function codeLines(text: string): number {
  const source = parse('file.ts', text);
  const lines = new Set<number>();
  const visit = (node: ts.Node): void => {
    if (ts.isJSDoc(node)) return;
    if (node.getChildCount(source) === 0 && node.getWidth(source) > 0) {
      const first = source.getLineAndCharacterOfPosition(node.getStart(source)).line;
      const last = source.getLineAndCharacterOfPosition(node.getEnd()).line;
      for (let line = first; line <= last; line++) lines.add(line);
    }
    for (const child of node.getChildren(source)) visit(child);
  };
  visit(source);
  return lines.size;
}

/** Exported functions, constants and classes of a module that no doc comment introduces. */
export function undocumented(path: string, text: string): string[] {
  const source = parse(path, text);
  const documented = new Set<string>();
  const exported = new Map<string, number>();
  for (const statement of source.statements) {
    const functional = ts.isFunctionDeclaration(statement) || ts.isClassDeclaration(statement);
    if (!functional && !ts.isVariableStatement(statement)) continue;
    if (!statement.modifiers?.some(modifier => modifier.kind === ts.SyntaxKind.ExportKeyword)) continue;
    const names = functional
      ? [statement.name?.text ?? 'default']
      : statement.declarationList.declarations.map(declaration => declaration.name.getText(source));
    const doc = ts.getJSDocCommentsAndTags(statement).some(ts.isJSDoc);
    for (const name of names) {
      if (doc)
        documented.add(name); // one doc serves all overloads
      else exported.set(name, source.getLineAndCharacterOfPosition(statement.getStart(source)).line + 1);
    }
  }
  return [...exported]
    .filter(([name]) => !documented.has(name))
    .map(([name, line]) => `${path}:${line} exports ${name} without a doc comment`);
}

/** The words a module can name a shader by: its identifiers and strings. */
export function wordsOf(path: string, text: string): Set<string> {
  const words = new Set<string>();
  const visit = (node: ts.Node): void => {
    if (ts.isIdentifier(node) || ts.isStringLiteralLike(node)) words.add(node.text);
    ts.forEachChild(node, visit);
  };
  visit(parse(path, text));
  return words;
}

/** Paths of one machine and hosts of package registries, which no committed file may hold. */
export function foreignWords(path: string, text: string): string[] {
  const machine = /(?<![\w.~-])\/(?:work|root|home|tmp|Users)\/[\w.-]*/g;
  const registry = /\b(?:registry|npm)\.(?:[\w-]+\.)*(?:org|com|net|dev|io|internal)\b/g;
  return [...text.matchAll(machine), ...text.matchAll(registry)].map(
    match => `${path}:${text.slice(0, match.index).split('\n').length} holds ${match[0]}`,
  );
}
