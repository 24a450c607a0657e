/** Settings as schemas. Loading the library takes a tenth of a start: only those who give a setting need it. */
import { z } from 'zod';
import type { Parsed } from './quantities.ts';
import { type SettingName, settings, type SettingValue } from './settings.ts';

export function schemaOf<N extends SettingName>(name: N): z.ZodType<SettingValue<N>, unknown> {
  const { parse, list, emptyProblem } = settings[name];
  const one = parsed<unknown>(parse);
  const many = z.array(one);
  const schema = list ? (emptyProblem === undefined ? many : many.min(1, emptyProblem)) : one;
  return schema as z.ZodType<SettingValue<N>, unknown>;
}

function parsed<T>(parse: (text: string) => Parsed<T>): z.ZodType<T, unknown> {
  return z.string().transform((text, context) => {
    const result = parse(text);
    if ('value' in result) return result.value;
    context.addIssue({ code: 'custom', message: `"${text}" ${result.problem}` });
    return z.NEVER;
  });
}
