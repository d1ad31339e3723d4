//! The canonical text of a key: equal keys give equal texts, on one server.
//!
//! A tombstone remembers a deleted key as `text[]`. The delete trigger writes it from the row,
//! apply looks it up from the values that arrived; both use [`key_expression`], so they agree. A
//! type's own output is not enough where equal values print differently: `1.0 = 1.00` for numeric,
//! `-0 = 0` for float, `1 mon = 30 days` for interval, `'A' = 'a'` for citext and for collations
//! that ignore case. Such values are brought to one form, or replaced by the type's own 64-bit
//! hash, which agrees with its equality by construction; a collision would only make two keys share
//! a tombstone.

use super::table::{Key, KeyColumn};

/// The key as a `text[]` expression. `value` gives, for each column, an expression of the column's
/// own type: `d."id"` in a trigger, `$3::pg_catalog.int4` in apply. Evaluate it with datestyle,
/// intervalstyle, timezone, `extra_float_digits` and `bytea_output` pinned, as both users do.
///
/// Its collation is that of `mmrepl.tombstone`: a column's own would leave none to compare them by.
pub fn key_expression(key: &Key, value: impl Fn(usize, &KeyColumn) -> String) -> String {
    let texts: Vec<String> = key
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| column.form.text_of(&value(index, column)))
        .collect();
    format!(
        "(array[{}]::pg_catalog.text[] collate pg_catalog.\"C\")",
        texts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::key_form::KeyForm;

    #[test]
    fn an_expression_lists_the_columns_in_key_order() {
        let column = |name: &str, form| KeyColumn {
            name: name.to_owned(),
            type_name: "x".to_owned(),
            equality: "OPERATOR(pg_catalog.=)".to_owned(),
            form,
        };
        let key = Key {
            index: "t_pkey".to_owned(),
            columns: vec![column("a", KeyForm::Cast), column("b", KeyForm::Numeric)],
            primary: true,
            deferrable: false,
        };
        let text = key_expression(&key, |index, column| format!("{}{index}", column.name));
        assert_eq!(
            text,
            "(array[(a0)::pg_catalog.text, pg_catalog.trim_scale(b1)::pg_catalog.text]\
             ::pg_catalog.text[] collate pg_catalog.\"C\")"
        );
    }
}
