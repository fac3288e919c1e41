//! A database for one test.

use modelyard_postgres_local::Cluster;
use sqlx::{Connection, PgConnection};

/// Made for a test, and dropped with it.
pub struct TestDatabase {
    url: String,
    admin_url: String,
    name: String,
    /// A server of the test's own, where none was named.
    cluster: Option<Cluster>,
}

impl TestDatabase {
    /// On the server that `MODELYARD_TEST_DATABASE_URL` names (`cargo xtask test` sets it), else on a temporary one.
    pub async fn create() -> Self {
        let (admin_url, cluster) = match std::env::var("MODELYARD_TEST_DATABASE_URL") {
            Ok(url) => (url, None),
            Err(_) => {
                let start = || Cluster::temporary(&|_| {}).expect("PostgreSQL starts");
                let cluster = tokio::task::spawn_blocking(start).await.expect("PostgreSQL starts");
                (cluster.url("postgres"), Some(cluster))
            }
        };
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        execute(&admin_url, format!("create database {name}")).await.expect("a database is created");
        let (server, _) = admin_url.rsplit_once('/').expect("a URL with a database");
        Self { url: format!("{server}/{name}"), admin_url, name, cluster }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The latest term of office.
    pub async fn epoch(&self) -> i64 {
        let mut connection = PgConnection::connect(&self.url).await.expect("the database answers");
        sqlx::query_scalar("select epoch from office").fetch_one(&mut connection).await.expect("an office")
    }

    /// From now on Postgres notes who decides: whose connection writes the state of a deployment, and in which term.
    pub async fn watch_decisions(&self) {
        for statement in [
            "create table decisions (id bigint generated always as identity, by text, epoch bigint)",
            "create function note() returns trigger language plpgsql as $$ begin
                insert into decisions (by, epoch) select current_setting('application_name'), epoch from office;
                return null; end $$",
            "create trigger note after update of state on deployments for each row execute function note()",
        ] {
            execute(&self.url, statement.to_owned()).await.expect("it is noted");
        }
    }

    /// Who decided since, in order, with the term of office that Postgres knew of then.
    pub async fn decisions(&self) -> Vec<(String, i64)> {
        let mut connection = PgConnection::connect(&self.url).await.expect("the database answers");
        let noted = sqlx::query_as("select by, epoch from decisions order by id").fetch_all(&mut connection).await;
        noted.expect("what was noted")
    }
}

async fn execute(url: &str, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.cluster.is_some() {
            return;
        }
        let (url, statement) = (self.admin_url.clone(), format!("drop database if exists {} with (force)", self.name));
        // A thread of its own: the test's runtime may be in the middle of a panic.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(execute(&url, statement)).ok()
        });
        dropping.join().ok();
    }
}
