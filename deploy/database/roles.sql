-- The database of GPU Dev: for each service a role that owns a schema of its own and sees no other.
--
--   set -a; . secrets/database.env; set +a
--   psql -X -v ON_ERROR_STOP=1 -f deploy/database/roles.sql "postgresql://postgres@db.example.org/postgres"
--
-- psql 15 or later, as a superuser or as a role with CREATEROLE and CREATEDB (as on RDS). May be run again: it makes what is
-- not there, and changed passwords take effect. Passwords come by environment, AUTH_PASSWORD and so on; a service without
-- one is left as it is. `-v database=NAME`: another name than gpudev. `-v shared=1`: the server has databases of others,
-- which are left as they are; otherwise nobody but superusers may enter `postgres` and `template1` any more.

\if :{?database} \else \set database gpudev \endif

SELECT format('CREATE DATABASE %I', :'database') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database')
\gexec
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
\if :{?shared} \else
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
\endif

\connect :"database"
REVOKE ALL ON SCHEMA public FROM PUBLIC;

\getenv password AUTH_PASSWORD
\set service auth
\ir service.sql
\getenv password JOBS_PASSWORD
\set service jobs
\ir service.sql
\getenv password DISKS_PASSWORD
\set service disks
\ir service.sql
\getenv password CAPACITY_PASSWORD
\set service capacity
\ir service.sql
