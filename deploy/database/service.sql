-- One service's role and schema; included by roles.sql, which sets `service`, `password` and `database`.
\if :{?password}
\set role gpudev_:service

SELECT format('CREATE ROLE %I', :'role') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role')
\gexec
ALTER ROLE :"role" LOGIN PASSWORD :'password';
-- who is no superuser may only make a schema for a role that they belong to
SELECT format('GRANT %I TO CURRENT_USER', :'role')
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT pg_has_role(:'role', 'USAGE')
\gexec
GRANT CONNECT ON DATABASE :"database" TO :"role";
SELECT format('CREATE SCHEMA %I AUTHORIZATION %I', :'service', :'role')
WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = :'service')
\gexec
REVOKE ALL ON SCHEMA :"service" FROM PUBLIC;
ALTER ROLE :"role" IN DATABASE :"database" SET search_path = :"service";
\unset password
\endif
