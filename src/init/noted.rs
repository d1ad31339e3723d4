//! What a node knows of writes that were not sent.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;

use super::PUBLICATION;
use crate::catalog::CatalogError;
use crate::catalog::names::readable;
use crate::config::Config;
use crate::ids::{LinkName, NodeName, slot_name};
use crate::wire::{RowExt, each};

/// From this version on a change whose publication did not exist yet is left out of the stream
/// without a word; earlier servers refuse to send anything more.
pub(super) const LEAVES_OUT_SINCE: u32 = 18;

/// A table whose writes here were not all sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) schema: String,
    pub(super) name: String,
    /// When that was noticed, as text.
    pub(super) since: String,
    /// What was left out, as words: `deletes`. May be empty.
    pub(super) left_out: String,
    /// What happened that may have made rows differ though all was sent, as words. May be empty.
    pub(super) happened: String,
}

impl Gap {
    /// `schema.table`, for people.
    pub(super) fn readable(&self) -> String {
        readable(&self.schema, &self.name)
    }

    /// What people are told of tables that something happened to, as the text around their names.
    pub(super) fn unsure(happened: &str) -> (String, String) {
        ("rows may differ in ".to_owned(), format!(": {happened}"))
    }

    /// What people are told, each as the text before and after the names of tables.
    pub(super) fn sentences(&self) -> Vec<(String, String)> {
        let (left_out, happened, since) = (&self.left_out, &self.happened, &self.since);
        let not_sent = (
            format!("{left_out} made here in "),
            format!(
                " were not sent to the other nodes for a while (noticed {since}), so their rows may differ"
            ),
        );
        let unsure = Self::unsure(&format!("{happened} (noticed {since})"));
        let said = [(left_out, not_sent), (happened, unsure)];
        let said = said.into_iter().filter(|(what, _)| !what.is_empty());
        said.map(|(_, around)| around).collect()
    }
}

/// What a node knows of writes that were not sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    /// By peer: whether its slot may read what was written before the publication was made.
    pub(super) predated: HashMap<NodeName, bool>,
    /// Tables that were published once, by `pg_class.oid`.
    pub(super) sent_before: HashSet<u32>,
    /// Tables whose writes were not all sent.
    pub(super) gaps: Vec<Gap>,
}

impl Noted {
    /// Reads it.
    pub(super) async fn read(
        config: &Config,
        node: &NodeName,
        client: &Client,
    ) -> Result<Self, CatalogError> {
        let mut predated = HashMap::new();
        for peer in config.peers_of(node) {
            let link = LinkName {
                from: node.clone(),
                to: peer.name.clone(),
            };
            let slot = slot_name(&config.cluster, &peer.name);
            let anew = predates_publication(client, (&link, &slot)).await?;
            predated.insert(link.to, anew);
        }
        Ok(Self {
            predated,
            sent_before: sent_before(client).await?,
            gaps: read(client).await?,
        })
    }
}

async fn read(client: &Client) -> Result<Vec<Gap>, CatalogError> {
    let sql = "select schema_name, table_name, left_out,
                      pg_catalog.to_char(since at time zone 'UTC',
                                         'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                      happened
               from mmrepl.gap order by 1, 2";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("read mmrepl.gap"))?;
    let gap = |row: &tokio_postgres::Row| {
        Ok(Gap {
            schema: row.read(0)?,
            name: row.read(1)?,
            left_out: row.read(2)?,
            since: row.read(3)?,
            happened: row.read(4)?,
        })
    };
    Ok(each(&rows, gap)?)
}

/// The tables that were published once: whatever is made beside them was never to be sent.
async fn sent_before(client: &Client) -> Result<HashSet<u32>, CatalogError> {
    let sql = "select distinct coalesce(pg_catalog.pg_partition_root(relation)::oid, relation)
               from mmrepl.table_file";
    let rows = client.query(sql, &[]).await;
    let rows = rows.map_err(CatalogError::query("read mmrepl.table_file"))?;
    Ok(each(&rows, |row| row.read(0))?)
}

/// Whether the link's slot may still read what was written before the publication was made. Once
/// the server has moved the slot's horizon past the publication's making, it does not.
async fn predates_publication(
    client: &Client,
    (link, slot): (&LinkName, &str),
) -> Result<bool, CatalogError> {
    let sql = "
        select p.oid is null or p.oid <> m.publication
               and not coalesce(pg_catalog.age(p.xmin) > pg_catalog.age(s.catalog_xmin), false)
        from mmrepl.link_memory m
        left join pg_catalog.pg_publication p on p.pubname = $2
        left join pg_catalog.pg_replication_slots s on s.slot_name = $3
        where m.link = $1 and m.publication is not null";
    let row = client
        .query_opt(sql, &[&link.to_string(), &PUBLICATION, &slot])
        .await;
    let row = row.map_err(CatalogError::query("read which publication a slot knows"))?;
    Ok(row.map(|row| row.read(0)).transpose()?.unwrap_or_default())
}
