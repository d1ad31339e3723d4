//! What is seen of the stage: both nodes' tables side by side, and `mmrepl status`.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};

use super::DemoError;
use super::stage::{Node, Stage};

/// Rows shown per table; the newest are the interesting ones.
const SHOWN_MAX: usize = 12;

const PRODUCTS: &str = "select lpad(id::text, 3), format('%s, %s in stock', name, stock)
    from product order by id";
const ORDERS: &str = "select lpad(o.id::text, 3),
        format('%s: %s %s (%s)', o.customer, o.quantity, p.name, coalesce(o.note, ''))
    from orders o join product p on p.id = o.product_id order by o.id";

impl Stage {
    /// Prints both tables of both nodes side by side.
    pub(super) async fn show_tables(&self) {
        for (title, query) in [("product", PRODUCTS), ("orders", ORDERS)] {
            let [east, west] = &self.nodes;
            let rows = (read(east, query).await, read(west, query).await);
            println!("{}", side_by_side(title, &rows.0, &rows.1));
        }
    }

    /// Prints `mmrepl status`, which tells by its exit status too whether all is well.
    pub(super) async fn show_status(&self) -> Result<(), DemoError> {
        let output = self.mmrepl_output(&["status"]).await?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// Key to text; none when the server is down.
type Rows = Option<BTreeMap<String, String>>;

async fn read(node: &Node, query: &str) -> Rows {
    let rows = node.texts(query).await.ok()?;
    let pair = |row: Vec<String>| match <[String; 2]>::try_from(row) {
        Ok([key, text]) => Some((key, text)),
        Err(_) => None,
    };
    Some(rows.into_iter().filter_map(pair).collect())
}

fn side_by_side(title: &str, east: &Rows, west: &Rows) -> String {
    let mut keys: Vec<&String> = [east, west]
        .into_iter()
        .flatten()
        .flat_map(BTreeMap::keys)
        .collect();
    keys.sort();
    keys.dedup();
    let hidden = keys.len().saturating_sub(SHOWN_MAX);
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header([title, "east", "west", ""]);
    for key in keys.iter().skip(hidden) {
        let (on_east, on_west) = (cell(east, key), cell(west, key));
        let mark = if on_east == on_west { "" } else { "different" };
        table.add_row([key.trim(), &on_east, &on_west, mark]);
    }
    table.to_string()
}

fn cell(rows: &Rows, key: &str) -> String {
    let Some(rows) = rows else {
        return "(server down)".to_owned();
    };
    rows.get(key).cloned().unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_marked_and_a_dead_server_is_named() {
        let row = |text: &str| Some(BTreeMap::from([("  1".to_owned(), text.to_owned())]));
        assert!(!side_by_side("t", &row("a"), &row("a")).contains("different"));
        assert!(side_by_side("t", &row("a"), &row("b")).contains("different"));
        assert!(side_by_side("t", &row("a"), &None).contains("(server down)"));
    }
}
