//! What can be done to the stage, one thing each.

use super::DemoError;
use super::stage::Stage;

/// East's place on the stage.
pub(super) const EAST: usize = 0;
/// West's place on the stage.
pub(super) const WEST: usize = 1;

/// Both links.
const LINKS: [&str; 2] = ["east->west", "west->east"];
const PRODUCTS: &str = "insert into product values
    (1, 'lamp', 40), (2, 'chair', 12), (3, 'teapot', 7)";

impl Stage {
    /// Fills the shop, on east only.
    pub(super) async fn first_products(&mut self) -> Result<(), DemoError> {
        self.nodes[EAST].sql(PRODUCTS).await
    }

    /// Somebody orders something on one node.
    pub(super) async fn order(
        &mut self,
        index: usize,
        customer: &str,
        product: u32,
    ) -> Result<(), DemoError> {
        let node = &self.nodes[index];
        println!("  {}: {customer} orders product {product}", node.name);
        let sql = format!(
            "begin;
             insert into orders (customer, product_id, quantity, note)
                 values ('{customer}', {product}, 1, 'written on {}');
             update product set stock = stock - 1 where id = {product};
             commit",
            node.name
        );
        node.sql(&sql).await?;
        self.placed += 1;
        Ok(())
    }

    /// Every order that was placed is on both nodes, once; gives how many. (The script deletes one,
    /// but the other side changes it later, and the later change wins.)
    pub(super) async fn assert_nothing_lost(&self) -> Result<usize, DemoError> {
        let placed = self.placed;
        for node in &self.nodes {
            let found = node.texts("select customer from orders").await?.len();
            if found != placed {
                return Err(DemoError::Lost {
                    node: node.name,
                    placed,
                    found,
                });
            }
        }
        Ok(placed)
    }

    /// Both nodes change the same product's name: only one can win.
    pub(super) async fn same_row(&mut self) -> Result<(), DemoError> {
        for (index, name) in [(EAST, "teapot, blue"), (WEST, "teapot, green")] {
            let node = &self.nodes[index];
            println!("  {}: product 3 is now called '{name}'", node.name);
            node.sql(&format!("update product set name = '{name}' where id = 3"))
                .await?;
        }
        Ok(())
    }

    /// East deletes an order that west changes afterwards: the later change wins.
    pub(super) async fn delete_against_update(&mut self) -> Result<(), DemoError> {
        println!("  east: deletes the oldest order");
        let oldest = "id = (select min(id) from orders)";
        self.nodes[EAST]
            .sql(&format!("delete from orders where {oldest}"))
            .await?;
        println!("  west: changes the same order a moment later");
        let change = format!("update orders set note = 'gift wrap, please' where {oldest}");
        self.nodes[WEST].sql(&change).await
    }

    /// Stops both links; both nodes go on alone.
    pub(super) async fn cut_links(&mut self) -> Result<(), DemoError> {
        self.for_links("pause").await
    }

    /// Lets both links go on.
    pub(super) async fn join_links(&mut self) -> Result<(), DemoError> {
        self.for_links("resume").await
    }

    async fn for_links(&self, verb: &str) -> Result<(), DemoError> {
        for link in LINKS {
            println!("  mmrepl {verb} '{link}'");
            self.mmrepl(&[verb, link]).await?;
        }
        Ok(())
    }

    /// `kill -9` of a daemon.
    pub(super) fn kill_daemon(&mut self, index: usize) {
        println!("  kill -9: the daemon of {}", self.nodes[index].name);
        self.nodes[index].kill_daemon();
    }

    /// `kill -9` of a server, all of its processes.
    pub(super) fn kill_server(&mut self, index: usize) {
        println!("  kill -9: the server of {}", self.nodes[index].name);
        self.nodes[index].kill_server();
    }

    /// Starts whatever is down.
    pub(super) fn bring_back(&mut self) -> Result<(), DemoError> {
        for index in [EAST, WEST] {
            let node = &mut self.nodes[index];
            if !node.server_runs() {
                println!("  the server of {} starts again", node.name);
                node.start_server()?;
            }
            if !self.nodes[index].daemon_runs() {
                println!("  the daemon of {} starts again", self.nodes[index].name);
                self.start_daemon(index)?;
            }
        }
        Ok(())
    }
}
